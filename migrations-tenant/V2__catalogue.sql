-- What the laboratory can measure, and between which bounds a value is usual.

CREATE TABLE test_def (
  code           text PRIMARY KEY CHECK (code ~ '^[A-Z0-9_]{1,16}$'),
  name           text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
  loinc          text CHECK (loinc ~ '^[0-9]{1,6}-[0-9]$'),
  section        text NOT NULL CHECK (char_length(section) BETWEEN 1 AND 64),
  specimen_type  text NOT NULL CHECK (char_length(specimen_type) BETWEEN 1 AND 64),
  value_type     text NOT NULL CHECK (value_type IN ('quantity', 'coded', 'text', 'panel')),
  -- UCUM, case-sensitive: 10*3/uL, never K/uL (that is kelvin per microlitre).
  unit           text CHECK (char_length(unit) BETWEEN 1 AND 40),
  -- How many decimals a screen offers for entry. Values are kept as given; nothing is ever rounded to this.
  decimals       smallint CHECK (decimals BETWEEN 0 AND 9),
  allowed_values text[],
  members        text[],
  -- A quantity that differs from the patient's previous one by more than this within so many days is marked.
  delta_pct      numeric CHECK (delta_pct > 0),
  delta_days     int CHECK (delta_days > 0),
  tat_minutes    int NOT NULL DEFAULT 1440 CHECK (tat_minutes > 0),
  standard       boolean NOT NULL DEFAULT false,
  active         boolean NOT NULL DEFAULT true,
  version        int NOT NULL DEFAULT 1,
  CHECK ((value_type = 'quantity') = (unit IS NOT NULL)),
  CHECK ((value_type = 'coded') = (allowed_values IS NOT NULL)),
  CHECK ((value_type = 'panel') = (members IS NOT NULL)),
  CHECK ((delta_pct IS NULL) = (delta_days IS NULL)),
  CHECK (delta_pct IS NULL OR value_type = 'quantity')
);

CREATE FUNCTION test_def_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  -- Old results say what they mean only by their test: its kind and unit cannot turn under them.
  IF (OLD.code, OLD.value_type, OLD.unit, OLD.specimen_type)
     IS DISTINCT FROM (NEW.code, NEW.value_type, NEW.unit, NEW.specimen_type) THEN
    RAISE EXCEPTION 'code, kind, unit and specimen of test % stay; add a test of its own instead', OLD.code
      USING ERRCODE = 'LAB05';
  END IF;
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;
CREATE TRIGGER test_def_guard BEFORE UPDATE ON test_def FOR EACH ROW EXECUTE FUNCTION test_def_guard();
CREATE TRIGGER test_def_kept BEFORE DELETE OR TRUNCATE ON test_def FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

-- Ages are ISO 8601 durations (P28D, P6M, P18Y) counted from the date of birth on the calendar, half-open: from
-- age_from on, until just before age_to. Whole years would lose newborns, and 18 years are 6574 or 6575 days,
-- depending on the leap years between: a birthday is exact where a count of days is not.
-- A range is never edited: it is closed (valid_to) and a new one is made, so what an old result was judged by stays readable.
CREATE TABLE ref_range (
  id         uuid PRIMARY KEY,
  test_code  text NOT NULL REFERENCES test_def (code),
  sex        text CHECK (sex IN ('F', 'M')),
  age_from   text NOT NULL DEFAULT 'P0D' CHECK (age_from ~ '^P(?=[0-9])([0-9]{1,3}Y)?([0-9]{1,4}M)?([0-9]{1,5}D)?$'),
  age_to     text CHECK (age_to ~ '^P(?=[0-9])([0-9]{1,3}Y)?([0-9]{1,4}M)?([0-9]{1,5}D)?$'),
  low        numeric,
  high       numeric,
  crit_low   numeric,
  crit_high  numeric,
  valid_from timestamptz NOT NULL DEFAULT now(),
  valid_to   timestamptz,
  CHECK (low <= high),
  CHECK (crit_low <= crit_high),
  CHECK (crit_low <= low),
  CHECK (crit_high >= high),
  CHECK (valid_to >= valid_from),
  CHECK (num_nonnulls(low, high, crit_low, crit_high) > 0),
  CHECK (abs(low) < 1e15 AND abs(high) < 1e15 AND abs(crit_low) < 1e15 AND abs(crit_high) < 1e15)
);
CREATE INDEX ref_range_test ON ref_range (test_code) WHERE valid_to IS NULL;

CREATE FUNCTION ref_range_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF OLD.valid_to IS NOT NULL OR NEW.valid_to IS NULL
     OR (OLD.id, OLD.test_code, OLD.sex, OLD.age_from, OLD.age_to, OLD.low, OLD.high, OLD.crit_low, OLD.crit_high, OLD.valid_from)
        IS DISTINCT FROM
        (NEW.id, NEW.test_code, NEW.sex, NEW.age_from, NEW.age_to, NEW.low, NEW.high, NEW.crit_low, NEW.crit_high, NEW.valid_from) THEN
    RAISE EXCEPTION 'a reference range is closed and replaced, never edited' USING ERRCODE = 'LAB03';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER ref_range_guard BEFORE UPDATE ON ref_range FOR EACH ROW EXECUTE FUNCTION ref_range_guard();
CREATE TRIGGER ref_range_kept BEFORE DELETE OR TRUNCATE ON ref_range FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
