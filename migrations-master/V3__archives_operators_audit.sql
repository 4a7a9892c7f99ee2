-- What outlives a laboratory: its archives and the record of who did what.

-- A row here means: this dump was restored and compared. Ids without foreign keys, because the tenant is gone when the
-- archive is needed.
CREATE TABLE archives (
    id           uuid        PRIMARY KEY,
    tenant_id    uuid        NOT NULL,
    tenant_slug  text        NOT NULL CHECK (tenant_slug <> ''),
    tenant_name  text        NOT NULL,
    operation_id uuid        UNIQUE,
    location     text        NOT NULL CHECK (location <> ''),
    bytes        bigint      NOT NULL CHECK (bytes > 0),
    sha256       text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    db_version   integer     NOT NULL CHECK (db_version >= 0),
    manifest     jsonb       NOT NULL,
    created_by   text        NOT NULL CHECK (created_by <> ''),
    created_at   timestamptz NOT NULL DEFAULT now(),
    verified_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX archives_tenant ON archives (tenant_id, created_at DESC);

-- The platform's own staff.
CREATE TABLE operators (
    id            uuid        PRIMARY KEY,
    email         citext      NOT NULL UNIQUE CHECK (email <> ''),
    display_name  text        NOT NULL CHECK (btrim(display_name) <> ''),
    password_hash text        NOT NULL CHECK (password_hash <> ''),
    disabled_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_log (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text        NOT NULL CHECK (actor <> ''),
    action     text        NOT NULL CHECK (action <> ''),
    tenant_id  uuid,
    detail     jsonb       NOT NULL DEFAULT '{}',
    request_id text,
    client_ip  inet
);

CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id DESC);

-- Kept for ever: nothing that connects as the registry's user can change what was written, not even by mistake. (A
-- superuser can disable a trigger; that is the server's audit to catch.)
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, lower(TG_OP)
        USING ERRCODE = 'restrict_violation', HINT = 'Write a new row that corrects the old one.';
END $$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
