-- An administrator can be invited: they have no password until they have set one themselves, by a link that is shown once.

ALTER TABLE tenant_admins ALTER COLUMN password_hash DROP NOT NULL;

-- The newest invitation of each administrator; one that is made later takes its place.
CREATE TABLE admin_invitations (
    tenant_id    uuid        NOT NULL,
    admin_id     uuid        NOT NULL,
    -- Never the token itself: whoever reads this table gets in nowhere.
    token_sha256 bytea       NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    created_by   text        NOT NULL CHECK (created_by <> ''),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    -- Used up. The row stays, so that an acceptance that was cut off between two databases can be completed.
    accepted_at  timestamptz,
    PRIMARY KEY (tenant_id, admin_id),
    FOREIGN KEY (tenant_id, admin_id) REFERENCES tenant_admins (tenant_id, id) ON DELETE CASCADE
);
