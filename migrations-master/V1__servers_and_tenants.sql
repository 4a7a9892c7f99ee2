-- Who the laboratories are, and on which PostgreSQL server each has its database.
--
-- Words are text with a CHECK and not enum types: an enum costs every new connection a look-up of the type, and
-- taking a word away from one means rebuilding it.

-- Slugs and e-mail addresses are compared without regard to case. citext is a trusted extension, so the owner of the
-- database may create it.
CREATE EXTENSION IF NOT EXISTS citext;

-- One sequence for all generations, never a counter on each row: a laboratory that is restored under its old id must
-- not start again below the generation that a router may still hold of it.
CREATE SEQUENCE generations AS bigint;

CREATE TABLE servers (
    name         text        PRIMARY KEY CHECK (name ~ '^[a-z0-9-]{1,40}$'),
    host         text        NOT NULL CHECK (host <> ''),
    port         integer     NOT NULL CHECK (port BETWEEN 1 AND 65535),
    admin_user   text        NOT NULL CHECK (admin_user <> ''),
    -- Sealed by the control plane's own key; the registry never holds a password that can be read.
    admin_secret bytea       NOT NULL,
    generation   bigint      NOT NULL DEFAULT nextval('generations'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
    id            uuid        PRIMARY KEY,
    -- citext, so that "Acme" finds "acme" wherever a person or a host name asks. The shape itself is checked as plain
    -- text: what is stored is always lower case.
    slug          citext      NOT NULL UNIQUE
                  CHECK (slug::text ~ '^[a-z][a-z0-9]*(-[a-z0-9]+)*$' AND length(slug::text) BETWEEN 2 AND 40),
    name          text        NOT NULL CHECK (btrim(name) <> '' AND length(name) <= 200),
    time_zone     text        NOT NULL CHECK (time_zone <> ''),
    server        text        NOT NULL REFERENCES servers (name),
    db_name       text        NOT NULL UNIQUE CHECK (octet_length(db_name) BETWEEN 1 AND 63),
    role_name     text        NOT NULL CHECK (octet_length(role_name) BETWEEN 1 AND 63),
    role_secret   bytea,
    status        text        NOT NULL DEFAULT 'provisioning'
                  CHECK (status IN ('provisioning', 'active', 'suspended', 'deleting')),
    -- Where calling off a removal leads back to.
    status_before text        CHECK (status_before IN ('active', 'suspended')),
    db_version    integer     NOT NULL DEFAULT 0 CHECK (db_version >= 0),
    generation    bigint      NOT NULL DEFAULT nextval('generations'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    activated_at  timestamptz,
    CONSTRAINT tenants_status_before_only_while_deleting
        CHECK ((status = 'deleting') = (status_before IS NOT NULL))
);

CREATE INDEX tenants_server ON tenants (server);

CREATE TABLE tenant_admins (
    -- The same id stands in the laboratory's own staff list.
    id            uuid        PRIMARY KEY,
    tenant_id     uuid        NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    email         citext      NOT NULL CHECK (email <> ''),
    display_name  text        NOT NULL CHECK (btrim(display_name) <> ''),
    password_hash text        NOT NULL CHECK (password_hash <> ''),
    disabled_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, email)
);

-- Log-in knows the address only.
CREATE INDEX tenant_admins_email ON tenant_admins (email);

CREATE TABLE tenant_events (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    uuid        NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    at           timestamptz NOT NULL DEFAULT now(),
    kind         text        NOT NULL CHECK (kind <> ''),
    actor        text        NOT NULL CHECK (actor <> ''),
    -- No foreign key: an operation may be cleared away sooner than the laboratory's history.
    operation_id uuid,
    detail       jsonb       NOT NULL DEFAULT '{}'
);

CREATE INDEX tenant_events_tenant ON tenant_events (tenant_id, id);

-- The generation is the database's business: whoever changes a row, also by hand in psql, raises it. It is taken with
-- the row already locked, so for one row the order of generations is the order of commits.
CREATE FUNCTION stamp_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.generation := nextval('generations');
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER tenants_stamp BEFORE UPDATE ON tenants
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_generation();
CREATE TRIGGER servers_stamp BEFORE UPDATE ON servers
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_generation();

-- Tells the routers. A notification arrives after the commit and not at all after a rollback. A row that goes takes a
-- generation of its own, above every snapshot ever read of it. The payload has a bounded size (8000 bytes is the
-- server's limit): ids and numbers only.
CREATE FUNCTION notify_tenants() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    affected record;
    number   bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        affected := OLD;
        number := nextval('generations');
    ELSE
        affected := NEW;
        number := NEW.generation;
    END IF;
    IF TG_TABLE_NAME = 'servers' THEN
        PERFORM pg_notify('tenantry_tenants', json_build_object(
            'server', affected.name, 'generation', number, 'op', lower(TG_OP))::text);
    ELSE
        PERFORM pg_notify('tenantry_tenants', json_build_object(
            'id', affected.id, 'generation', number, 'op', lower(TG_OP))::text);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tenants_notify AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION notify_tenants();
CREATE TRIGGER servers_notify AFTER INSERT OR UPDATE OR DELETE ON servers
    FOR EACH ROW EXECUTE FUNCTION notify_tenants();
