-- The people whose specimens are examined. Duplicates are merged by pointing, never by moving results.

-- Medical record numbers, given in order. A gap (a rolled-back registration) means nothing.
CREATE SEQUENCE patient_mrn_seq;

CREATE TABLE patient (
  id           uuid PRIMARY KEY,
  mrn          text NOT NULL UNIQUE,
  national_id  text CHECK (char_length(national_id) BETWEEN 1 AND 64),
  family_name  text NOT NULL CHECK (char_length(family_name) BETWEEN 1 AND 200),
  given_name   text NOT NULL CHECK (char_length(given_name) BETWEEN 1 AND 200),
  -- The names as typed stay as typed; these are folded by the application (case and accents, all of Unicode) for search,
  -- which lower() under a C locale would do for ASCII only.
  family_key   text NOT NULL,
  given_key    text NOT NULL,
  sex          text NOT NULL CHECK (sex IN ('F', 'M', 'O', 'U')),
  birth_date   date NOT NULL CHECK (birth_date >= DATE '1850-01-01'),
  merged_into  uuid REFERENCES patient (id),
  merge_reason text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  version      int NOT NULL DEFAULT 1,
  CHECK (merged_into IS DISTINCT FROM id),
  CHECK ((merged_into IS NULL) = (merge_reason IS NULL))
);
-- A merged duplicate keeps its number on record without blocking the one that lives on.
CREATE UNIQUE INDEX patient_national_id ON patient (national_id) WHERE national_id IS NOT NULL AND merged_into IS NULL;
CREATE INDEX patient_family ON patient (family_key text_pattern_ops, given_key text_pattern_ops);
CREATE INDEX patient_given ON patient (given_key text_pattern_ops);
CREATE INDEX patient_birth ON patient (birth_date);
CREATE INDEX patient_merged ON patient (merged_into) WHERE merged_into IS NOT NULL;

CREATE FUNCTION patient_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF (OLD.id, OLD.mrn, OLD.created_at) IS DISTINCT FROM (NEW.id, NEW.mrn, NEW.created_at) THEN
    RAISE EXCEPTION 'a patient keeps the same id and record number' USING ERRCODE = 'LAB05';
  END IF;
  IF OLD.merged_into IS NOT NULL AND (NEW.merged_into IS NULL
     OR (OLD.national_id, OLD.family_name, OLD.given_name, OLD.sex, OLD.birth_date)
        IS DISTINCT FROM (NEW.national_id, NEW.family_name, NEW.given_name, NEW.sex, NEW.birth_date)) THEN
    RAISE EXCEPTION 'patient % is merged into another and stays as it is', OLD.mrn USING ERRCODE = 'LAB02';
  END IF;
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER patient_guard BEFORE UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION patient_guard();
CREATE TRIGGER patient_kept BEFORE DELETE OR TRUNCATE ON patient FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
