-- Results, everything they ever said, and the rules that no caller can go around.
--
--   pending -> entered -> verified -> released -> corrected / amended -> voided
--   entered, verified -> pending (repeat)      pending, entered, verified -> cancelled

CREATE TABLE result (
  id             uuid PRIMARY KEY,
  order_id       uuid NOT NULL,
  patient_id     uuid NOT NULL,
  specimen_id    uuid NOT NULL,
  test_code      text NOT NULL REFERENCES test_def (code),
  status         text NOT NULL DEFAULT 'pending' CHECK (status IN
                   ('pending', 'entered', 'verified', 'released', 'corrected', 'amended', 'cancelled', 'voided')),
  -- Derived, and the only trace of the status in an index: entering and verifying change no indexed column, so both are
  -- HOT updates; only closing a result (and cancelling or voiding it) is not.
  open           boolean GENERATED ALWAYS AS (status IN ('pending', 'entered', 'verified')) STORED,
  live           boolean GENERATED ALWAYS AS (status NOT IN ('cancelled', 'voided')) STORED,

  -- The value. Its scale is kept: 5.0 stays 5.0.
  value_num      numeric CHECK (abs(value_num) < 1e15 AND scale(value_num) <= 9),
  comparator     text CHECK (comparator IN ('<', '<=', '>=', '>')),
  value_text     text CHECK (char_length(value_text) BETWEEN 1 AND 4000),
  unit           text,
  comment        text CHECK (char_length(comment) <= 4000),
  instrument     text CHECK (char_length(instrument) <= 100),
  resulted_at    timestamptz,
  import_id      uuid,

  -- The range it was judged by, copied: a range edited later must not re-flag an old result.
  ref_range_id   uuid REFERENCES ref_range (id),
  ref_low        numeric,
  ref_high       numeric,
  crit_low       numeric,
  crit_high      numeric,
  flag           text CHECK (flag IN ('N', 'L', 'H', 'LL', 'HH')),
  delta_flag     boolean NOT NULL DEFAULT false,
  delta_previous numeric,

  -- The signatures. Their times are set by the guard, not by the caller.
  entered_by     uuid REFERENCES staff (id),
  entered_at     timestamptz,
  verified_by    uuid REFERENCES staff (id),
  verified_at    timestamptz,
  self_verified  boolean NOT NULL DEFAULT false,
  released_by    uuid REFERENCES staff (id),
  released_at    timestamptz,
  amendment_id   uuid UNIQUE,

  -- Given with a step that replaces a value; the guard moves it into the revision, so it cannot serve twice.
  change_reason  text CHECK (char_length(change_reason) BETWEEN 1 AND 500),
  -- Why it was cancelled or voided.
  closed_reason  text CHECK (char_length(closed_reason) BETWEEN 1 AND 500),
  changed_by     uuid NOT NULL REFERENCES staff (id),
  rev            int NOT NULL DEFAULT 1,
  version        int NOT NULL DEFAULT 1,
  updated_at     timestamptz NOT NULL DEFAULT now(),

  FOREIGN KEY (order_id, patient_id) REFERENCES lab_order (id, patient_id),
  FOREIGN KEY (specimen_id, order_id) REFERENCES specimen (id, order_id),
  CHECK (num_nonnulls(value_num, value_text) <= 1),
  CHECK (comparator IS NULL OR value_num IS NOT NULL),
  CHECK (status IN ('pending', 'cancelled') OR (num_nonnulls(value_num, value_text) = 1 AND entered_by IS NOT NULL AND entered_at IS NOT NULL)),
  CHECK (status NOT IN ('verified', 'released', 'corrected', 'amended', 'voided') OR (verified_by IS NOT NULL AND verified_at IS NOT NULL)),
  CHECK (status NOT IN ('released', 'corrected', 'amended', 'voided') OR (released_by IS NOT NULL AND released_at IS NOT NULL)),
  CHECK (verified_by <> entered_by OR self_verified),
  CHECK ((status IN ('cancelled', 'voided')) = (closed_reason IS NOT NULL)),
  -- The flag follows from the value and the range beside it. With a comparator (<0.07) the application gives a flag only
  -- where it is certain, so the database cannot insist on one.
  CONSTRAINT result_flag_follows CHECK (
    CASE
      WHEN value_num IS NULL OR ref_range_id IS NULL THEN flag IS NULL
      WHEN comparator IS NOT NULL THEN true
      WHEN value_num < crit_low THEN flag IS NOT DISTINCT FROM 'LL'
      WHEN value_num > crit_high THEN flag IS NOT DISTINCT FROM 'HH'
      WHEN value_num < ref_low THEN flag IS NOT DISTINCT FROM 'L'
      WHEN value_num > ref_high THEN flag IS NOT DISTINCT FROM 'H'
      WHEN ref_low IS NULL AND ref_high IS NULL THEN flag IS NULL
      ELSE flag IS NOT DISTINCT FROM 'N'
    END)
) WITH (fillfactor = 70); -- entering and verifying are HOT: leave room for them on the row's page
CREATE UNIQUE INDEX result_live ON result (order_id, test_code) WHERE live;
CREATE INDEX result_order ON result (order_id);
CREATE INDEX result_open ON result (id) WHERE open;
CREATE INDEX result_patient_test ON result (patient_id, test_code);
CREATE INDEX result_specimen ON result (specimen_id);

-- Everything a result ever said before, written by the guard alone.
CREATE TABLE result_revision (
  result_id      uuid NOT NULL REFERENCES result (id),
  rev            int NOT NULL,
  status         text NOT NULL,
  specimen_id    uuid NOT NULL,
  value_num      numeric,
  comparator     text,
  value_text     text,
  unit           text,
  comment        text,
  instrument     text,
  resulted_at    timestamptz,
  import_id      uuid,
  ref_range_id   uuid,
  ref_low        numeric,
  ref_high       numeric,
  crit_low       numeric,
  crit_high      numeric,
  flag           text,
  delta_flag     boolean NOT NULL,
  delta_previous numeric,
  entered_by     uuid,
  entered_at     timestamptz,
  verified_by    uuid,
  verified_at    timestamptz,
  self_verified  boolean NOT NULL,
  released_by    uuid,
  released_at    timestamptz,
  amendment_id   uuid,
  superseded_at  timestamptz NOT NULL DEFAULT now(),
  superseded_by  uuid NOT NULL,
  reason         text NOT NULL,
  PRIMARY KEY (result_id, rev)
);
CREATE TRIGGER result_revision_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON result_revision
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A change to a released result: entered by one person, verified by another, and only then applied. Being a row of its
-- own, it cannot lean on the verification that the old value had.
CREATE TABLE result_amendment (
  id             uuid PRIMARY KEY,
  result_id      uuid NOT NULL REFERENCES result (id),
  base_rev       int NOT NULL,
  kind           text NOT NULL CHECK (kind IN ('corrected', 'amended')),
  status         text NOT NULL DEFAULT 'proposed' CHECK (status IN ('proposed', 'verified', 'withdrawn')),
  value_num      numeric CHECK (abs(value_num) < 1e15 AND scale(value_num) <= 9),
  comparator     text CHECK (comparator IN ('<', '<=', '>=', '>')),
  value_text     text CHECK (char_length(value_text) BETWEEN 1 AND 4000),
  comment        text CHECK (char_length(comment) <= 4000),
  flag           text CHECK (flag IN ('N', 'L', 'H', 'LL', 'HH')),
  delta_flag     boolean NOT NULL DEFAULT false,
  delta_previous numeric,
  reason         text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 500),
  entered_by     uuid NOT NULL REFERENCES staff (id),
  entered_at     timestamptz NOT NULL DEFAULT now(),
  verified_by    uuid REFERENCES staff (id),
  verified_at    timestamptz,
  self_verified  boolean NOT NULL DEFAULT false,
  CHECK (num_nonnulls(value_num, value_text) = 1),
  CHECK (comparator IS NULL OR value_num IS NOT NULL),
  CHECK ((status = 'verified') = (verified_by IS NOT NULL)),
  CHECK ((status = 'verified') = (verified_at IS NOT NULL))
);
CREATE UNIQUE INDEX result_amendment_open ON result_amendment (result_id) WHERE status = 'proposed';
CREATE INDEX result_amendment_result ON result_amendment (result_id);
ALTER TABLE result ADD FOREIGN KEY (amendment_id) REFERENCES result_amendment (id);
CREATE TRIGGER result_amendment_kept BEFORE DELETE OR TRUNCATE ON result_amendment
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

-- Somebody who treats the patient was told of a critical value. A notice speaks of one value: of this revision, and of the
-- amendment that brings it if one does. A repeated or amended value that is critical again needs a notice again, and what
-- was said of a withdrawn proposal serves no other.
CREATE TABLE critical_notice (
  id           uuid PRIMARY KEY,
  result_id    uuid NOT NULL REFERENCES result (id),
  rev          int NOT NULL,
  amendment_id uuid REFERENCES result_amendment (id),
  notified_to  text NOT NULL CHECK (char_length(notified_to) BETWEEN 1 AND 200),
  notified_at  timestamptz NOT NULL,
  read_back    boolean NOT NULL,
  notified_by  uuid NOT NULL REFERENCES staff (id),
  recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX critical_notice_result ON critical_notice (result_id, rev);
CREATE TRIGGER critical_notice_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON critical_notice
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Whether a value is or may be critical. A comparator stands for every number that it allows: potassium >6.0 with a critical
-- limit of 6.5 has no certain flag, and yet somebody must be told before it is released. Without a comparator the flag is
-- certain (result_flag_follows).
CREATE FUNCTION may_be_critical(flag text, value_num numeric, comparator text, crit_low numeric, crit_high numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(flag IN ('LL', 'HH'), false)
  OR CASE
       WHEN comparator IN ('<', '<=') THEN crit_low IS NOT NULL OR coalesce(value_num > crit_high, false)
       WHEN comparator IN ('>', '>=') THEN crit_high IS NOT NULL OR coalesce(value_num < crit_low, false)
       ELSE false
     END;

CREATE FUNCTION critical_notice_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM result r WHERE r.id = NEW.result_id AND r.rev = NEW.rev
                       AND r.amendment_id IS NOT DISTINCT FROM NEW.amendment_id
                       AND may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high))
     AND NOT EXISTS (SELECT FROM result_amendment a JOIN result r ON r.id = a.result_id WHERE a.id = NEW.amendment_id AND a.result_id = NEW.result_id AND a.base_rev = NEW.rev - 1
                       AND a.status = 'proposed' AND may_be_critical(a.flag, a.value_num, a.comparator, r.crit_low, r.crit_high)) THEN
    RAISE EXCEPTION 'there is no critical value of that revision to give notice of' USING ERRCODE = 'LAB02';
  END IF;
  NEW.recorded_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER critical_notice_guard BEFORE INSERT ON critical_notice FOR EACH ROW EXECUTE FUNCTION critical_notice_guard();

CREATE FUNCTION result_amendment_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.status <> 'proposed' OR NEW.verified_by IS NOT NULL OR NEW.self_verified THEN
      RAISE EXCEPTION 'an amendment begins as a proposal' USING ERRCODE = 'LAB07';
    END IF;
    IF NOT EXISTS (SELECT FROM result r WHERE r.id = NEW.result_id AND r.rev = NEW.base_rev
                     AND r.status IN ('released', 'corrected', 'amended')) THEN
      RAISE EXCEPTION 'only the present value of a released result can be amended' USING ERRCODE = 'LAB02';
    END IF;
    NEW.entered_at := now();
    RETURN NEW;
  END IF;
  IF OLD.status <> 'proposed' OR NEW.status = 'proposed' THEN
    RAISE EXCEPTION 'an amendment is verified or withdrawn once' USING ERRCODE = 'LAB02';
  END IF;
  IF (OLD.id, OLD.result_id, OLD.base_rev, OLD.kind, OLD.value_num::text, OLD.comparator, OLD.value_text, OLD.comment, OLD.flag,
      OLD.delta_flag, OLD.delta_previous::text, OLD.reason, OLD.entered_by, OLD.entered_at) IS DISTINCT FROM
     (NEW.id, NEW.result_id, NEW.base_rev, NEW.kind, NEW.value_num::text, NEW.comparator, NEW.value_text, NEW.comment, NEW.flag,
      NEW.delta_flag, NEW.delta_previous::text, NEW.reason, NEW.entered_by, NEW.entered_at) THEN
    RAISE EXCEPTION 'an amendment is not edited: withdraw it and enter another' USING ERRCODE = 'LAB03';
  END IF;
  IF NEW.status = 'verified' THEN
    NEW.self_verified := NEW.verified_by = NEW.entered_by;
    IF NEW.verified_by IS NULL THEN
      RAISE EXCEPTION 'a verification names who verified' USING ERRCODE = 'LAB11';
    END IF;
    IF NEW.self_verified AND NOT EXISTS (SELECT FROM lab_profile WHERE allow_self_verify) THEN
      RAISE EXCEPTION 'the person who entered an amendment cannot verify it' USING ERRCODE = 'LAB08';
    END IF;
    NEW.verified_at := now();
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER result_amendment_guard BEFORE INSERT OR UPDATE ON result_amendment
  FOR EACH ROW EXECUTE FUNCTION result_amendment_guard();
