-- More operations, and operations that can be called off or wait: adopting a database, backups, restoring, the grace period
-- of a removal.

-- While an archive takes the place of what a laboratory holds it is closed, and goes back to the state before.
ALTER TABLE tenants
    DROP CONSTRAINT tenants_status_check,
    ADD CONSTRAINT tenants_status_check
        CHECK (status IN ('provisioning', 'active', 'suspended', 'deleting', 'restoring')),
    DROP CONSTRAINT tenants_status_before_only_while_deleting,
    ADD CONSTRAINT tenants_status_before_only_while_it_leads_back
        CHECK ((status IN ('deleting', 'restoring')) = (status_before IS NOT NULL));

DROP INDEX tenants_closed;
CREATE INDEX tenants_closed ON tenants (id, generation) WHERE status IN ('suspended', 'deleting', 'restoring');

ALTER TABLE operations
    DROP CONSTRAINT operations_kind_check,
    ADD CONSTRAINT operations_kind_check
        CHECK (kind IN ('provision', 'adopt', 'migrate', 'backup', 'restore', 'restore_in_place', 'offboard')),
    DROP CONSTRAINT operations_status_check,
    ADD CONSTRAINT operations_status_check
        CHECK (status IN ('pending', 'running', 'undoing', 'succeeded', 'failed', 'cancelled')),
    DROP CONSTRAINT operations_check1,
    ADD CONSTRAINT operations_finished_when_final
        CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    DROP CONSTRAINT operations_check2,
    ADD CONSTRAINT operations_no_lease_when_final
        CHECK (finished_at IS NULL OR lease_owner IS NULL),
    -- Who asked for it to be called off. Whoever runs it looks, and turns it to undoing.
    ADD COLUMN cancel_requested_by text CHECK (cancel_requested_by <> ''),
    ADD COLUMN cancel_requested_at timestamptz,
    ADD CONSTRAINT operations_cancel_is_whole
        CHECK ((cancel_requested_by IS NULL) = (cancel_requested_at IS NULL)),
    -- What it does from here on cannot be taken back. In the row itself, because calling off and going on are decided on it.
    ADD COLUMN past_return boolean NOT NULL DEFAULT false,
    -- Until when the present step does nothing but wait. It is pending then, holds no lease and uses up no try.
    ADD COLUMN waiting_until timestamptz;

DROP INDEX operations_one_live_per_tenant;
CREATE UNIQUE INDEX operations_one_live_per_tenant ON operations (tenant_id) WHERE finished_at IS NULL;
DROP INDEX operations_claimable;
CREATE INDEX operations_claimable ON operations (not_before, id) WHERE finished_at IS NULL;

ALTER TABLE operation_steps
    DROP CONSTRAINT operation_steps_step_check,
    ADD CONSTRAINT operation_steps_step_check CHECK (step IN (
        'ensure_role', 'ensure_database', 'secure_database', 'ensure_schema', 'seed', 'check', 'activate',
        'record_version', 'fence', 'dump', 'verify', 'grace', 'readmit', 'drop_database', 'drop_role', 'remove_tenant',
        'inspect', 'baseline', 'release', 'restore_database', 'swap_database', 'drop_replaced', 'drop_restored', 'prune'));
