-- Merges that can be undone, units that can be put right, imports that can be tried again, and what is looked for every day.

-- Merges -----------------------------------------------------------------------------------------------------------------

-- `merged_into` is the patient who lives on. The one named in the merge is kept beside it, so that a merge can be undone
-- without undoing those that came before it.
ALTER TABLE patient
  ADD COLUMN merged_directly uuid REFERENCES patient (id),
  ADD COLUMN merged_at timestamptz;
-- A merged record did not change after its merge.
ALTER TABLE patient DISABLE TRIGGER USER;
UPDATE patient SET merged_directly = merged_into, merged_at = updated_at WHERE merged_into IS NOT NULL;
ALTER TABLE patient ENABLE TRIGGER USER;
ALTER TABLE patient
  ADD CHECK ((merged_into IS NULL) = (merged_directly IS NULL)),
  ADD CHECK ((merged_into IS NULL) = (merged_at IS NULL));

CREATE OR REPLACE FUNCTION patient_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF (OLD.id, OLD.mrn, OLD.created_at) IS DISTINCT FROM (NEW.id, NEW.mrn, NEW.created_at) THEN
    RAISE EXCEPTION 'a patient keeps the same id and record number' USING ERRCODE = 'LAB05';
  END IF;
  IF OLD.merged_into IS NOT NULL
     AND (OLD.national_id, OLD.family_name, OLD.given_name, OLD.sex, OLD.birth_date)
         IS DISTINCT FROM (NEW.national_id, NEW.family_name, NEW.given_name, NEW.sex, NEW.birth_date) THEN
    RAISE EXCEPTION 'patient % is merged into another and stays as it is', OLD.mrn USING ERRCODE = 'LAB02';
  END IF;
  IF OLD.merged_into IS NOT NULL AND NEW.merged_into IS NULL THEN
    IF EXISTS (SELECT FROM result r WHERE r.released_at > OLD.merged_at AND r.patient_id IN
                 (SELECT p.id FROM patient p WHERE p.id = OLD.merged_into OR p.merged_into = OLD.merged_into)) THEN
      RAISE EXCEPTION 'results were released since patient % was merged into another', OLD.mrn USING ERRCODE = 'LAB02';
    END IF;
    NEW.merge_reason := NULL;
    NEW.merged_directly := NULL;
    NEW.merged_at := NULL;
  ELSIF OLD.merged_into IS NULL AND NEW.merged_into IS NOT NULL THEN
    NEW.merged_directly := NEW.merged_into;
    NEW.merged_at := now();
  ELSE
    NEW.merged_directly := OLD.merged_directly;
    NEW.merged_at := OLD.merged_at;
  END IF;
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- Units ------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION test_def_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF (OLD.code, OLD.specimen_type) IS DISTINCT FROM (NEW.code, NEW.specimen_type) THEN
    RAISE EXCEPTION 'code and specimen of test % stay; add a test of its own instead', OLD.code USING ERRCODE = 'LAB05';
  END IF;
  -- Results say what they mean by their test, and ranges are written in its unit.
  IF (OLD.value_type, OLD.unit) IS DISTINCT FROM (NEW.value_type, NEW.unit)
     AND (EXISTS (SELECT FROM result r WHERE r.test_code = OLD.code)
          OR EXISTS (SELECT FROM ref_range g WHERE g.test_code = OLD.code AND g.valid_to IS NULL)) THEN
    RAISE EXCEPTION 'kind and unit of test % stay while it has results or ranges in force', OLD.code USING ERRCODE = 'LAB05';
  END IF;
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;

-- Imports ----------------------------------------------------------------------------------------------------------------

-- Each time that a batch was worked on and something came of it: the first delivery, the same file again, a retry of what was
-- set aside.
CREATE TABLE import_run (
  batch_id       uuid NOT NULL REFERENCES import_batch (id),
  run            int NOT NULL CHECK (run > 0),
  kind           text NOT NULL CHECK (kind IN ('delivery', 'redelivery', 'retry')),
  rows_ok        int NOT NULL CHECK (rows_ok >= 0),
  rows_unchanged int NOT NULL CHECK (rows_unchanged >= 0),
  rows_not_done  int NOT NULL CHECK (rows_not_done >= 0),
  rows_rejected  int NOT NULL CHECK (rows_rejected >= 0),
  run_by         uuid NOT NULL REFERENCES staff (id),
  run_at         timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (batch_id, run)
);
CREATE TRIGGER import_run_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON import_run
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO import_run (batch_id, run, kind, rows_ok, rows_unchanged, rows_not_done, rows_rejected, run_by, run_at)
SELECT id, 1, 'delivery', rows_ok, 0, 0, rows_rejected, created_by, created_at FROM import_batch;
ALTER TABLE import_batch DROP COLUMN rows_ok, DROP COLUMN rows_rejected;

-- The rows that a run set aside. `fields` is what was read of a row that can be read; a row of an earlier version has none and
-- is tried again when its file is delivered again.
ALTER TABLE import_error
  ADD COLUMN run int NOT NULL DEFAULT 1,
  ADD COLUMN fields jsonb,
  DROP CONSTRAINT import_error_pkey,
  DROP CONSTRAINT import_error_batch_id_fkey;
ALTER TABLE import_error
  ALTER COLUMN run DROP DEFAULT,
  ADD PRIMARY KEY (batch_id, run, line),
  ADD FOREIGN KEY (batch_id, run) REFERENCES import_run (batch_id, run);

-- Look-ups ---------------------------------------------------------------------------------------------------------------

CREATE INDEX lab_order_placer_no ON lab_order (placer_order_no) WHERE placer_order_no IS NOT NULL;
CREATE INDEX lab_order_day ON lab_order (ordered_at);
