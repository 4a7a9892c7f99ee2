-- What left the laboratory, in the order in which it became visible; and files that came in from instruments.

-- The cursor of exports. A time or a plain sequence is not one: a transaction that took its number early and commits
-- late appears behind a reader's cursor and is never seen. A transaction id is not one either: it means nothing after
-- the database was moved to another server. So the number is drawn at the very end of a transaction, under a lock that is
-- held until its commit is visible: numbers appear in ascending order, and `seq > cursor` misses nothing.
-- The price: transactions that publish results commit one after another. Publishing is a few calls a minute.
CREATE TABLE result_change (
  seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  result_id  uuid NOT NULL REFERENCES result (id),
  rev        int NOT NULL,
  status     text NOT NULL,
  changed_at timestamptz NOT NULL
);
CREATE TRIGGER result_change_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON result_change
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION result_publish() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  -- The key is the feed's name; advisory locks are per database, so laboratories never wait for each other.
  PERFORM pg_advisory_xact_lock(hashtextextended('result_change', 0));
  INSERT INTO result_change (result_id, rev, status, changed_at) VALUES (NEW.id, NEW.rev, NEW.status, NEW.updated_at);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER result_publish AFTER UPDATE ON result DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.status IN ('released', 'corrected', 'amended', 'voided')) EXECUTE FUNCTION result_publish();

CREATE TABLE import_batch (
  id            uuid PRIMARY KEY,
  format        text NOT NULL CHECK (format IN ('csv', 'ndjson')),
  dry_run       boolean NOT NULL,
  file_sha256   bytea NOT NULL CHECK (octet_length(file_sha256) = 32),
  rows_total    int NOT NULL CHECK (rows_total >= 0),
  rows_ok       int NOT NULL CHECK (rows_ok >= 0),
  rows_rejected int NOT NULL CHECK (rows_rejected >= 0),
  created_by    uuid NOT NULL REFERENCES staff (id),
  created_at    timestamptz NOT NULL DEFAULT now(),
  CHECK (rows_total = rows_ok + rows_rejected)
);
-- The same file gives the same batch. A rehearsal is not the file: it takes no hash away from the real import.
CREATE UNIQUE INDEX import_batch_file ON import_batch (file_sha256) WHERE NOT dry_run;
CREATE TRIGGER import_batch_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON import_batch
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE result ADD FOREIGN KEY (import_id) REFERENCES import_batch (id);

-- Rows that were set aside, with the reason; they are never dropped and never stop the others.
CREATE TABLE import_error (
  batch_id uuid NOT NULL REFERENCES import_batch (id),
  line     int NOT NULL CHECK (line > 0),
  raw      text NOT NULL,
  code     text NOT NULL,
  reason   text NOT NULL,
  PRIMARY KEY (batch_id, line)
);
CREATE TRIGGER import_error_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON import_error
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
