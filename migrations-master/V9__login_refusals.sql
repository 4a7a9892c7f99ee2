-- Refused log-ins, counted: whoever guesses makes a counter grow and not the audit, which is kept for ever.

CREATE TABLE login_refusals (
    -- The beginning of the hour in which they were refused, by this database's clock.
    since           timestamptz NOT NULL,
    audience        text        NOT NULL CHECK (audience IN ('lab', 'operator', 'invitation')),
    -- The problem's code.
    reason          text        NOT NULL CHECK (reason <> ''),
    -- Where somebody wanted in, as whom and from which client. All three are NULL in the row that counts what is beyond the
    -- bound on rows of one hour.
    tenant_id       uuid,
    email           text,
    client          inet,
    refusals        bigint      NOT NULL DEFAULT 1 CHECK (refusals > 0),
    first_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_request_id text
);

CREATE UNIQUE INDEX login_refusals_counted ON login_refusals
    (since, audience, reason, coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), coalesce(email, ''),
     coalesce(client, '::/0'));

-- From where somebody has logged in: an attack on their account does not hold them up there.
CREATE INDEX audit_log_logged_in ON audit_log (lower(detail ->> 'email'), client_ip, at) WHERE action = 'login.succeeded';
