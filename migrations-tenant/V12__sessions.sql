-- What ends a person's access tokens before their time. A token carries the epoch that it was issued under, and is valid only
-- while it is still the person's. An epoch is random and never returns, so it needs no clock, and no order. After a restore the
-- people have their epochs of then again: the laboratory's own epoch, in the registry, ends those tokens.

ALTER TABLE staff ADD COLUMN session_epoch uuid NOT NULL DEFAULT gen_random_uuid();

CREATE OR REPLACE FUNCTION staff_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  -- Signatures on results name this id: it must mean the same person for ever.
  IF (OLD.id, OLD.created_at) IS DISTINCT FROM (NEW.id, NEW.created_at) THEN
    RAISE EXCEPTION 'a staff member keeps the same id' USING ERRCODE = 'LAB05';
  END IF;
  -- A log-out changes nothing that an editor of the record has read.
  IF OLD.session_epoch IS DISTINCT FROM NEW.session_epoch
     AND (OLD.display_name, OLD.email, OLD.role, OLD.password_hash, OLD.oidc_sub, OLD.active)
       IS NOT DISTINCT FROM (NEW.display_name, NEW.email, NEW.role, NEW.password_hash, NEW.oidc_sub, NEW.active) THEN
    NEW.version := OLD.version;
  ELSE
    NEW.version := OLD.version + 1;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION staff_session_epoch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  NEW.session_epoch := gen_random_uuid();
  RETURN NEW;
END $$;
CREATE TRIGGER staff_session_epoch_password BEFORE UPDATE OF password_hash ON staff
  FOR EACH ROW EXECUTE FUNCTION staff_session_epoch();
CREATE TRIGGER staff_session_epoch_standing BEFORE UPDATE OF role, active ON staff
  FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role OR OLD.active IS DISTINCT FROM NEW.active)
  EXECUTE FUNCTION staff_session_epoch();

-- A person who works here sets their own password, by a link that is shown once to whoever adds or invites them. One row is one
-- link that can still be used; a newer one takes its place.
CREATE TABLE staff_invitation (
  staff_id      uuid PRIMARY KEY REFERENCES staff (id),
  -- Never the token itself: whoever reads this table gets in nowhere.
  token_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  -- The laboratory's epoch when it was made: a restore must not bring back a link that was used or taken back since.
  session_epoch uuid NOT NULL,
  created_by    uuid NOT NULL REFERENCES staff (id),
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at    timestamptz NOT NULL
);

-- A link ends with its use, with a password that is set in another way, with another address (the link lies in the mailbox of
-- the old one), and with the right to log in.
CREATE FUNCTION staff_invitation_ends() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  DELETE FROM public.staff_invitation WHERE staff_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER staff_invitation_ends_password AFTER UPDATE OF password_hash ON staff
  FOR EACH ROW EXECUTE FUNCTION staff_invitation_ends();
CREATE TRIGGER staff_invitation_ends_standing AFTER UPDATE OF email, active ON staff
  FOR EACH ROW WHEN (lower(OLD.email) IS DISTINCT FROM lower(NEW.email) OR NOT NEW.active)
  EXECUTE FUNCTION staff_invitation_ends();

-- Addresses are compared in NFC from now on. Two that would become the same stay as they are, for a person to decide.
DO $$
BEGIN
  IF current_setting('server_encoding') = 'UTF8' THEN
    UPDATE staff s SET email = normalize(s.email, NFC)
     WHERE s.email IS NOT NFC NORMALIZED
       AND NOT EXISTS (SELECT FROM staff t WHERE t.id <> s.id AND lower(normalize(t.email, NFC)) = lower(normalize(s.email, NFC)));
  END IF;
END $$;
