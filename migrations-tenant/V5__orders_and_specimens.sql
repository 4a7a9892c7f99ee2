-- What was asked for, and what was drawn for it.

-- Accession numbers count from 1 on each day of the laboratory's own time zone. The row lock of the upsert makes two
-- orders at once get two numbers; a day of its own per row means that a clock set back cannot give a number twice.
CREATE TABLE accession_counter (
  day  date PRIMARY KEY,
  last int NOT NULL CHECK (last > 0)
) WITH (fillfactor = 20); -- one hot row, rewritten for every order of the day: room for its versions on the page

CREATE TABLE lab_order (
  id              uuid PRIMARY KEY,
  accession_no    text NOT NULL UNIQUE,
  patient_id      uuid NOT NULL REFERENCES patient (id),
  priority        text NOT NULL DEFAULT 'routine' CHECK (priority IN ('routine', 'urgent', 'stat')),
  requester       text CHECK (char_length(requester) BETWEEN 1 AND 200),
  placer_order_no text CHECK (char_length(placer_order_no) BETWEEN 1 AND 64),
  clinical_note   text CHECK (char_length(clinical_note) <= 4000),
  status          text NOT NULL DEFAULT 'registered' CHECK (status IN ('registered', 'in_progress', 'completed', 'cancelled')),
  cancel_reason   text,
  created_by      uuid NOT NULL REFERENCES staff (id),
  ordered_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  version         int NOT NULL DEFAULT 1,
  UNIQUE (id, patient_id),
  CHECK ((status = 'cancelled') = (cancel_reason IS NOT NULL))
);
CREATE INDEX lab_order_patient ON lab_order (patient_id, ordered_at DESC);
CREATE INDEX lab_order_open ON lab_order (priority, ordered_at) WHERE status IN ('registered', 'in_progress');
-- A missing requester counts as one requester: two orders with the same placer number and none are still the same order.
CREATE UNIQUE INDEX lab_order_placer ON lab_order (coalesce(requester, ''), placer_order_no) WHERE placer_order_no IS NOT NULL;

CREATE TABLE specimen (
  id            uuid PRIMARY KEY,
  order_id      uuid NOT NULL REFERENCES lab_order (id),
  seq           smallint NOT NULL CHECK (seq > 0),
  barcode       text NOT NULL UNIQUE,
  specimen_type text NOT NULL,
  status        text NOT NULL DEFAULT 'expected' CHECK (status IN ('expected', 'collected', 'received', 'rejected', 'disposed')),
  collected_at  timestamptz,
  collected_by  uuid REFERENCES staff (id),
  received_at   timestamptz,
  received_by   uuid REFERENCES staff (id),
  reject_reason text CHECK (char_length(reject_reason) BETWEEN 1 AND 500),
  rejected_by   uuid REFERENCES staff (id),
  replaces      uuid REFERENCES specimen (id),
  version       int NOT NULL DEFAULT 1,
  UNIQUE (order_id, seq),
  UNIQUE (id, order_id),
  CHECK ((status = 'rejected') = (reject_reason IS NOT NULL)),
  CHECK ((reject_reason IS NULL) = (rejected_by IS NULL)),
  CHECK (status <> 'collected' OR (collected_at IS NOT NULL AND collected_by IS NOT NULL)),
  CHECK (status NOT IN ('received', 'disposed') OR (received_at IS NOT NULL AND received_by IS NOT NULL)),
  CHECK (received_at >= collected_at),
  -- Control material carries this prefix; a patient's specimen never may, or an import would set its values aside.
  CHECK (barcode !~* '^QC-')
);
CREATE INDEX specimen_todo ON specimen (order_id) WHERE status IN ('expected', 'collected');

CREATE FUNCTION specimen_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.status <> 'expected' OR num_nonnulls(NEW.collected_at, NEW.collected_by, NEW.received_at, NEW.received_by) > 0 THEN
    RAISE EXCEPTION 'a specimen begins as expected' USING ERRCODE = 'LAB07';
  END IF;
  IF EXISTS (SELECT FROM lab_order o WHERE o.id = NEW.order_id AND o.status NOT IN ('registered', 'in_progress')) THEN
    RAISE EXCEPTION 'the order is closed' USING ERRCODE = 'LAB02';
  END IF;
  NEW.version := 1;
  RETURN NEW;
END $$;
CREATE TRIGGER specimen_insert_guard BEFORE INSERT ON specimen FOR EACH ROW EXECUTE FUNCTION specimen_insert_guard();
CREATE TRIGGER specimen_kept BEFORE DELETE OR TRUNCATE ON specimen FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

CREATE FUNCTION lab_order_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.status <> 'registered' THEN
    RAISE EXCEPTION 'an order begins as registered' USING ERRCODE = 'LAB07';
  END IF;
  IF EXISTS (SELECT FROM patient p WHERE p.id = NEW.patient_id AND p.merged_into IS NOT NULL) THEN
    RAISE EXCEPTION 'the patient is merged into another; order for that one' USING ERRCODE = 'LAB02';
  END IF;
  NEW.version := 1;
  RETURN NEW;
END $$;
CREATE TRIGGER lab_order_insert_guard BEFORE INSERT ON lab_order FOR EACH ROW EXECUTE FUNCTION lab_order_insert_guard();
CREATE TRIGGER lab_order_kept BEFORE DELETE OR TRUNCATE ON lab_order FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
-- The guards for their updates look at results and so stand in the next migration.
