-- Events for others: what happened is written here in the transaction of the change itself, so that nothing is told that was
-- rolled back and nothing is lost that was committed. A delivery is one event on its way to one address.
--
-- No event refers to a laboratory's row: the last events of a laboratory are told when its row is gone.

CREATE TABLE webhooks (
    id                  uuid        PRIMARY KEY,
    url                 text        NOT NULL CHECK (url ~ '^https?://' AND length(url) <= 2000),
    description         text        NOT NULL DEFAULT '' CHECK (length(description) <= 200),
    -- Which types it gets; none named means all.
    event_types         text[]      NOT NULL DEFAULT '{}',
    -- Sealed by the control plane's own key. The one before signs beside it until its time is over.
    secret              bytea       NOT NULL,
    secret_before       bytea,
    secret_before_until timestamptz,
    -- Since when every attempt has failed, and how many those are.
    failing_since       timestamptz,
    failures            integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    disabled_at         timestamptz,
    disabled_why        text,
    created_by          text        NOT NULL CHECK (created_by <> ''),
    created_at          timestamptz NOT NULL DEFAULT now(),
    CHECK ((secret_before IS NULL) = (secret_before_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_why IS NULL)),
    CHECK ((failing_since IS NULL) = (failures = 0))
);

CREATE TABLE outbox (
    position  bigint      PRIMARY KEY,
    id        uuid        NOT NULL UNIQUE,
    kind      text        NOT NULL CHECK (kind <> ''),
    -- What is kept in order among itself: a laboratory's events by its id, all others by the zero id.
    lane      uuid        NOT NULL,
    -- The one address that gets it, where it is not for all.
    only_for  uuid,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    data      jsonb       NOT NULL
);

CREATE INDEX outbox_at ON outbox (at);
CREATE SEQUENCE outbox_positions AS bigint OWNED BY outbox.position;

CREATE TABLE webhook_deliveries (
    id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    webhook_id  uuid        NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    position    bigint      NOT NULL REFERENCES outbox (position) ON DELETE CASCADE,
    lane        uuid        NOT NULL,
    status      text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    -- How often it was begun since it was queued; one that was cut off by the end of a process counts too.
    attempts    integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    queued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_owner text,
    lease_until timestamptz,
    lease_token bigint      NOT NULL DEFAULT 0,
    ended_at    timestamptz,
    UNIQUE (webhook_id, position),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK ((status = 'pending') = (ended_at IS NULL)),
    CHECK (status = 'pending' OR lease_owner IS NULL)
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (not_before, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_lanes ON webhook_deliveries (webhook_id, lane, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_position ON webhook_deliveries (position);

-- Every attempt that ended, with what came of it.
CREATE TABLE webhook_attempts (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id uuid        NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    began_at    timestamptz NOT NULL,
    took_ms     bigint      NOT NULL CHECK (took_ms >= 0),
    worker      text        NOT NULL,
    -- What the receiver answered; none when it did not.
    status_code integer,
    error       text
);

CREATE INDEX webhook_attempts_delivery ON webhook_attempts (delivery_id, id);

-- The number is taken under a lock of the lane, held until the commit: within a lane the order of numbers is the order of
-- commits, so that no event can appear before one that was already sent.
CREATE FUNCTION number_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenantry outbox ' || NEW.lane, 0));
    NEW.position := nextval('outbox_positions');
    RETURN NEW;
END $$;

CREATE TRIGGER outbox_number BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION number_outbox();

-- An address that is switched off has its events queued too: when it is switched on again it gets those that are not too old.
CREATE FUNCTION queue_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (webhook_id, position, lane)
    SELECT id, NEW.position, NEW.lane FROM webhooks
     WHERE CASE WHEN NEW.only_for IS NULL
                THEN event_types = '{}' OR NEW.kind = ANY (event_types)
                ELSE id = NEW.only_for END;
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_queue AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION queue_deliveries();
