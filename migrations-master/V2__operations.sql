-- Durable, stepwise changes to one tenant, and the leases under which workers run them.
--
-- An operation holds its tenant's id without a foreign key: the last step of offboarding deletes the tenant's row and
-- must not delete, or be stopped by, its own operation. The slug is kept beside it so that people can still read whose
-- it was.
CREATE TABLE operations (
    id              uuid        PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('provision', 'migrate', 'offboard')),
    tenant_id       uuid        NOT NULL,
    tenant_slug     text        NOT NULL CHECK (tenant_slug <> ''),
    status          text        NOT NULL DEFAULT 'pending'
                    CHECK (status IN ('pending', 'running', 'undoing', 'succeeded', 'failed')),
    params          jsonb       NOT NULL DEFAULT '{}',
    progress        jsonb,
    error           text,
    created_by      text        NOT NULL CHECK (created_by <> ''),
    -- The same request sent twice is one operation.
    idempotency_key text        CONSTRAINT operations_idempotency_key UNIQUE,
    -- How often it was claimed, and how many of these tries failed: those that a crash or a restart cut off use up no
    -- try.
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures        integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    -- The server (its own identifier) on which the tenant's database was about to be dropped. Without it, a database that
    -- is not there was not dropped by this operation.
    drop_begun_on   text,
    not_before      timestamptz NOT NULL DEFAULT now(),
    lease_owner     text,
    lease_until     timestamptz,
    -- Raised by every claim and never set back: a worker that slept through the end of its lease holds an old token,
    -- even when its own process has claimed the operation again.
    lease_token     bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK ((status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)),
    CHECK (status NOT IN ('succeeded', 'failed') OR lease_owner IS NULL)
);

-- Two operations on one laboratory at once would pull the ground from under each other.
CREATE UNIQUE INDEX operations_one_live_per_tenant ON operations (tenant_id)
    WHERE status NOT IN ('succeeded', 'failed');
-- What a worker looks through: the live ones only, however many have ended.
CREATE INDEX operations_claimable ON operations (not_before, id) WHERE status NOT IN ('succeeded', 'failed');
CREATE INDEX operations_tenant ON operations (tenant_id, id DESC);

CREATE TABLE operation_steps (
    operation_id uuid        NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    step         text        NOT NULL CHECK (step IN (
                     'ensure_role', 'ensure_database', 'secure_database', 'ensure_schema', 'seed', 'check', 'activate',
                     'record_version', 'fence', 'dump', 'verify', 'drop_database', 'drop_role', 'remove_tenant')),
    -- In the order in which steps were first begun.
    sequence     bigint      GENERATED ALWAYS AS IDENTITY,
    status       text        NOT NULL CHECK (status IN ('running', 'done', 'failed')),
    attempts     integer     NOT NULL DEFAULT 1,
    worker       text        NOT NULL,
    began_at     timestamptz NOT NULL,
    ended_at     timestamptz,
    -- What the step found and did, as people debugging it want to see it.
    saw          jsonb,
    error        text,
    PRIMARY KEY (operation_id, step),
    CHECK ((status = 'running') = (ended_at IS NULL))
);

-- Wakes workers and whoever watches an operation. Renewing a lease leaves updated_at alone and so wakes nobody.
CREATE FUNCTION notify_operations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tenantry_operations', json_build_object('id', NEW.id)::text);
    RETURN NULL;
END $$;

CREATE TRIGGER operations_notify_insert AFTER INSERT ON operations
    FOR EACH ROW EXECUTE FUNCTION notify_operations();
CREATE TRIGGER operations_notify_update AFTER UPDATE ON operations
    FOR EACH ROW WHEN (OLD.updated_at IS DISTINCT FROM NEW.updated_at) EXECUTE FUNCTION notify_operations();
