-- What ends access tokens before their time. A token carries the epochs that it was issued under, and is valid only while they
-- are still those of the row. An epoch is random and never returns, so it needs no clock, and no order.

CREATE FUNCTION begin_session_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.session_epoch := gen_random_uuid();
    RETURN NEW;
END $$;

-- A laboratory's: new with every row, so a laboratory that comes back under its old id takes no token of before, and new after a
-- restore in place, which brings back the people's own epochs of then.
ALTER TABLE tenants ADD COLUMN session_epoch uuid NOT NULL DEFAULT gen_random_uuid();
CREATE TRIGGER tenants_session_epoch BEFORE UPDATE OF status ON tenants
    FOR EACH ROW WHEN (OLD.status = 'restoring' AND NEW.status <> 'restoring') EXECUTE FUNCTION begin_session_epoch();

-- An operator's: new with a new password, a disablement and its end, and by a log-out.
ALTER TABLE operators ADD COLUMN session_epoch uuid NOT NULL DEFAULT gen_random_uuid();
CREATE TRIGGER operators_session_epoch_password BEFORE UPDATE OF password_hash ON operators
    FOR EACH ROW EXECUTE FUNCTION begin_session_epoch();
CREATE TRIGGER operators_session_epoch_disabled BEFORE UPDATE OF disabled_at ON operators
    FOR EACH ROW WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at) EXECUTE FUNCTION begin_session_epoch();

-- Until when a receiver of webhooks has asked to be left alone (`Retry-After`).
ALTER TABLE webhooks ADD COLUMN held_until timestamptz;

-- Addresses are compared in NFC from now on. Two that would become the same stay as they are, for a person to decide.
DO $$
BEGIN
    IF current_setting('server_encoding') = 'UTF8' THEN
        UPDATE tenant_admins a SET email = normalize(a.email::text, NFC)::citext
         WHERE a.email::text IS NOT NFC NORMALIZED
           AND NOT EXISTS (SELECT FROM tenant_admins b WHERE b.tenant_id = a.tenant_id AND b.id <> a.id
                             AND normalize(b.email::text, NFC)::citext = normalize(a.email::text, NFC)::citext);
        UPDATE operators a SET email = normalize(a.email::text, NFC)::citext
         WHERE a.email::text IS NOT NFC NORMALIZED
           AND NOT EXISTS (SELECT FROM operators b WHERE b.id <> a.id
                             AND normalize(b.email::text, NFC)::citext = normalize(a.email::text, NFC)::citext);
    END IF;
END $$;
