-- Archives that can be restored, pruned and proved again, and backups on a schedule.

ALTER TABLE operations
    DROP CONSTRAINT operations_kind_check,
    ADD CONSTRAINT operations_kind_check
        CHECK (kind IN ('provision', 'adopt', 'migrate', 'backup', 'restore', 'restore_in_place', 'offboard',
                        'verify_archive'));

ALTER TABLE archives
    -- What it was made for. Only backups are ever pruned; those of before this all stand before a removal.
    ADD COLUMN made_for text NOT NULL DEFAULT 'offboard'
        CHECK (made_for IN ('backup', 'offboard', 'restore_in_place')),
    -- The administrators as they were, sealed by the installation's own key. Absent in archives of before this.
    ADD COLUMN admins bytea,
    -- Its files are being removed, and then the row: from here on nobody can restore it.
    ADD COLUMN pruning_since timestamptz;

ALTER TABLE archives ALTER COLUMN made_for DROP DEFAULT;

CREATE INDEX archives_pruning ON archives (id) WHERE pruning_since IS NOT NULL;

-- A laboratory that is restored beside itself has the same people, with the same ids as in its own staff list.
ALTER TABLE tenant_admins
    DROP CONSTRAINT tenant_admins_pkey,
    ADD PRIMARY KEY (tenant_id, id);

-- When a laboratory is backed up, and how long its backups are kept.
CREATE TABLE backup_schedules (
    tenant_id  uuid        PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    every_s    bigint      NOT NULL CHECK (every_s BETWEEN 3600 AND 31622400),
    -- A backup is kept while it is one of the last so many, or younger than so long.
    keep_last  integer     NOT NULL CHECK (keep_last BETWEEN 1 AND 10000),
    keep_for_s bigint      CHECK (keep_for_s BETWEEN 3600 AND 3162240000),
    next_at    timestamptz NOT NULL,
    created_by text        NOT NULL CHECK (created_by <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX backup_schedules_due ON backup_schedules (next_at);
