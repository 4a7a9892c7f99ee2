-- Which processes connect to laboratories' databases, and what each of them has let go of.
--
-- An operation that needs a laboratory for itself asks here whether every router that is alive has acknowledged the
-- generation since which the laboratory does not serve. A registration lives until expires_at, which is set and compared
-- by this database's clock alone, as leases are. The table has a row for each process: no index but the key's.
CREATE TABLE routers (
    id            uuid        PRIMARY KEY,
    -- For people: host and process id.
    name          text        NOT NULL CHECK (name <> ''),
    registered_at timestamptz NOT NULL,
    renewed_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);

-- "At this generation I held nothing of this laboratory, and I use nothing that I read about it before." The tenant has no
-- foreign key: its row may go while a router still answers.
CREATE TABLE router_acks (
    router_id  uuid   NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    tenant_id  uuid   NOT NULL,
    generation bigint NOT NULL,
    PRIMARY KEY (router_id, tenant_id)
);

-- What routers look through every second, and what the fences on the servers are compared with: those that do not serve,
-- however many do.
CREATE INDEX tenants_closed ON tenants (id, generation) WHERE status IN ('suspended', 'deleting');
