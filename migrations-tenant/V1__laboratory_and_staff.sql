-- A laboratory's own database: who it is, who works in it, and the trail of what they did.
--
-- Conventions of every migration in this folder
--   * Words (states, roles, kinds) are text with a CHECK: an enum type costs a catalogue look-up on each new connection
--     and cannot lose a word again.
--   * What must never happen is refused here, by constraint or trigger, also for the tables' owner. The laboratory's role
--     gets its few privileges from grants.sql and owns nothing.
--   * Trigger functions pin their search_path with pg_temp last: a temporary table must not stand in for a real one.
--
-- SQLSTATEs raised by the guards (crates/lab maps them in guard.rs; the two lists are compared by a test)
--   LAB01  rows of this table are never removed, or never changed once written
--   LAB02  the state does not allow this step
--   LAB03  a value, range, flag or signature changed in a step that must leave it alone
--   LAB04  a reason is required
--   LAB05  a row cannot move to another patient, order, test or laboratory
--   LAB06  an amendment needs an entry and a verification of its own
--   LAB07  a row must begin in its first state, empty
--   LAB08  the person who entered a value cannot verify it
--   LAB09  a critical value needs a recorded notice before it is released
--   LAB10  a value needs a received specimen
--   LAB11  something that the step needs is missing

CREATE FUNCTION refuse_removal() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are never removed', TG_TABLE_NAME USING ERRCODE = 'LAB01';
END $$;

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are written once and then never changed or removed', TG_TABLE_NAME USING ERRCODE = 'LAB01';
END $$;

-- One row: the laboratory itself.
CREATE TABLE lab_profile (
  one               boolean PRIMARY KEY DEFAULT true CHECK (one),
  tenant_id         uuid    NOT NULL,
  name              text    NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
  tz                text    NOT NULL DEFAULT 'UTC' CHECK (char_length(tz) BETWEEN 1 AND 64),
  acc_prefix        text    NOT NULL DEFAULT '' CHECK (acc_prefix ~ '^[A-Z0-9]{0,6}$'),
  -- Small laboratories with a single qualified person may allow it; every such result is marked self_verified.
  allow_self_verify boolean NOT NULL DEFAULT false,
  version           int     NOT NULL DEFAULT 1
);

CREATE FUNCTION lab_profile_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF (OLD.one, OLD.tenant_id) IS DISTINCT FROM (NEW.one, NEW.tenant_id) THEN
    RAISE EXCEPTION 'a database belongs to one laboratory for good' USING ERRCODE = 'LAB05';
  END IF;
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;
CREATE TRIGGER lab_profile_guard BEFORE UPDATE ON lab_profile FOR EACH ROW EXECUTE FUNCTION lab_profile_guard();
CREATE TRIGGER lab_profile_kept BEFORE DELETE OR TRUNCATE ON lab_profile FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

CREATE TABLE staff (
  id            uuid PRIMARY KEY,
  display_name  text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 200),
  email         text NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254),
  role          text NOT NULL CHECK (role IN ('receptionist', 'technician', 'supervisor', 'lab_admin')),
  -- Argon2id in PHC form. Absent when the person logs in through the registry or an identity provider.
  password_hash text CHECK (password_hash LIKE '$argon2id$%'),
  oidc_sub      text UNIQUE CHECK (char_length(oidc_sub) BETWEEN 1 AND 255),
  active        boolean NOT NULL DEFAULT true,
  created_at    timestamptz NOT NULL DEFAULT now(),
  version       int NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX staff_email ON staff (lower(email));

CREATE FUNCTION staff_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  -- Signatures on results name this id: it must mean the same person for ever.
  IF (OLD.id, OLD.created_at) IS DISTINCT FROM (NEW.id, NEW.created_at) THEN
    RAISE EXCEPTION 'a staff member keeps the same id' USING ERRCODE = 'LAB05';
  END IF;
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;
CREATE TRIGGER staff_guard BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION staff_guard();
CREATE TRIGGER staff_kept BEFORE DELETE OR TRUNCATE ON staff FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

-- Who did what and when, written in the transaction of the deed itself. Kept for ever.
CREATE TABLE audit_event (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor      uuid,
  actor_role text,
  action     text NOT NULL,
  entity     text NOT NULL,
  entity_id  text,
  request_id text,
  client_ip  inet,
  detail     jsonb
);
CREATE INDEX audit_event_entity ON audit_event (entity_id, id);
CREATE INDEX audit_event_at ON audit_event USING brin (at);
CREATE TRIGGER audit_event_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- First answers to requests that create something, written in the transaction of the deed. Swept after a day.
CREATE TABLE idempotency_key (
  actor       uuid NOT NULL,
  method_path text NOT NULL CHECK (char_length(method_path) <= 500),
  key         text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
  body_sha256 bytea NOT NULL CHECK (octet_length(body_sha256) = 32),
  status      smallint NOT NULL,
  headers     jsonb NOT NULL DEFAULT '{}',
  response    bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (actor, method_path, key)
);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);
