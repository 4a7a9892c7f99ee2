-- What comes first is decided by this database's clock and never by an id: ids are made by whoever asks, whose clock may be
-- off by months. clock_timestamp(), because now() is when the transaction began.
ALTER TABLE operations ALTER COLUMN created_at SET DEFAULT clock_timestamp();
DROP INDEX operations_tenant;
CREATE INDEX operations_tenant ON operations (tenant_id, created_at DESC, id DESC);
CREATE INDEX operations_created ON operations (created_at DESC, id DESC);

ALTER TABLE archives ALTER COLUMN created_at SET DEFAULT clock_timestamp();
DROP INDEX archives_tenant;
CREATE INDEX archives_tenant ON archives (tenant_id, created_at DESC, id DESC);
CREATE INDEX archives_created ON archives (created_at DESC, id DESC);

-- How a laboratory's backups went: the last that succeeded, the last that failed, and how many have failed since.
ALTER TABLE backup_schedules
    ADD COLUMN succeeded_at timestamptz,
    ADD COLUMN failed_at    timestamptz,
    ADD COLUMN failure      text,
    ADD COLUMN failures     integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    ADD CONSTRAINT backup_schedules_failure_is_whole CHECK ((failed_at IS NULL) = (failure IS NULL)),
    ADD CONSTRAINT backup_schedules_failures_have_one CHECK (failures = 0 OR failed_at IS NOT NULL);

UPDATE backup_schedules s SET succeeded_at =
    (SELECT max(created_at) FROM archives a WHERE a.tenant_id = s.tenant_id AND a.made_for = 'backup');

-- A local path means something on one host only.
ALTER TABLE archives
    -- The host that wrote it; absent in archives of before this and where every host sees the same store.
    ADD COLUMN host        text CHECK (host <> ''),
    -- Taken from its manifest, because the registry did not know it.
    ADD COLUMN imported_at timestamptz;

ALTER TABLE operations
    -- Hosts that cannot read what the operation needs. They leave it to others until the time is over.
    ADD COLUMN not_here       text[] NOT NULL DEFAULT '{}',
    ADD COLUMN not_here_until timestamptz,
    ADD CONSTRAINT operations_not_here_is_bounded CHECK (not_here = '{}' OR not_here_until IS NOT NULL),
    DROP CONSTRAINT operations_kind_check,
    ADD CONSTRAINT operations_kind_check
        CHECK (kind IN ('provision', 'adopt', 'migrate', 'backup', 'restore', 'restore_in_place', 'offboard',
                        'verify_archive', 'import_archive'));

-- The tenantd processes that run, for what they must have in common and for how far their clocks are off. A row that was not
-- renewed for a minute is of a process that is gone.
CREATE TABLE processes (
    name            text        PRIMARY KEY CHECK (name <> ''),
    host            text        NOT NULL CHECK (host <> ''),
    -- A short name for the key that signs tokens, from which the key cannot be found.
    signing_key     text        NOT NULL,
    -- Where it writes archives: a URL, or what is written in a local directory to know it again from another host.
    archive_store   text        NOT NULL,
    -- How far its host's clock is ahead of this database's.
    clock_offset_ms bigint      NOT NULL,
    seen_at         timestamptz NOT NULL
);
