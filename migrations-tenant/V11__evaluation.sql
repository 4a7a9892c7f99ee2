-- A critical value is not released unmarked, whoever writes it. The database evaluates every value itself: which range and which
-- critical limits hold for the person on the day of collection, which flag follows, and where there is no range, why. It does so
-- when a value is entered, again when an input of the evaluation changes, and once more before a release; nobody else writes an
-- evaluation. Also: when specimens were collected and received can be corrected with a reason, times that cannot be are
-- refused, and a notice of a critical value counts when it was read back after the value was there.
--
-- SQLSTATEs that the guards raise beside those of the first migration
--   LAB13  a time that cannot be: in the future, or before the birth or the value it belongs to
--   LAB14  the evaluation of a value no longer follows from the data: it must be evaluated again first
--   LAB15  the value does not fit its test: its kind or its unit
--   LAB16  a range overlaps another one for the same sex, or does not begin now

ALTER TABLE lab_profile ADD COLUMN accept_notice_without_read_back boolean NOT NULL DEFAULT false;

-- The functions below are PL/pgSQL where they read tables: the guards call them for each row, and a function in SQL that is not
-- inlined is planned anew by every statement that calls it (3 ms for one evaluation instead of 0.1 ms).

-- The day of a moment on the laboratory's calendar.
CREATE FUNCTION lab_day(moment timestamptz) RETURNS date
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (moment AT TIME ZONE coalesce((SELECT p.tz FROM public.lab_profile p), 'UTC'))::date;
END $$;

-- The flag at one end of what a value may be: the number itself (at), everything just beside it (below, above), or no end at all
-- (lowest, highest). A value equal to a bound is inside it.
CREATE FUNCTION flag_at(number numeric, edge text, ref_low numeric, ref_high numeric, crit_low numeric, crit_high numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN crit_low IS NOT NULL AND CASE edge WHEN 'lowest' THEN true WHEN 'highest' THEN false WHEN 'below' THEN number <= crit_low ELSE number < crit_low END THEN 'LL'
  WHEN crit_high IS NOT NULL AND CASE edge WHEN 'highest' THEN true WHEN 'lowest' THEN false WHEN 'above' THEN number >= crit_high ELSE number > crit_high END THEN 'HH'
  WHEN ref_low IS NOT NULL AND CASE edge WHEN 'lowest' THEN true WHEN 'highest' THEN false WHEN 'below' THEN number <= ref_low ELSE number < ref_low END THEN 'L'
  WHEN ref_high IS NOT NULL AND CASE edge WHEN 'highest' THEN true WHEN 'lowest' THEN false WHEN 'above' THEN number >= ref_high ELSE number > ref_high END THEN 'H'
  WHEN ref_low IS NOT NULL OR ref_high IS NOT NULL THEN 'N'
END;

-- The flag of a value. With a comparator the value is every number that it allows, and the flag is given only where it is true
-- of all of them: <30 under a low bound of 150 and a critical one of 20 is certainly low and perhaps critical.
CREATE FUNCTION flag_of(number numeric, comparator text, ref_low numeric, ref_high numeric, crit_low numeric, crit_high numeric) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  low_end text;
  high_end text;
BEGIN
  IF number IS NULL THEN
    RETURN NULL;
  END IF;
  low_end := public.flag_at(number, CASE WHEN comparator IN ('<', '<=') THEN 'lowest' WHEN comparator = '>' THEN 'above' ELSE 'at' END,
                            ref_low, ref_high, crit_low, crit_high);
  IF comparator IS NULL THEN
    RETURN low_end;
  END IF;
  high_end := public.flag_at(number, CASE WHEN comparator IN ('>', '>=') THEN 'highest' WHEN comparator = '<' THEN 'below' ELSE 'at' END,
                             ref_low, ref_high, crit_low, crit_high);
  RETURN CASE
    WHEN low_end IS NOT DISTINCT FROM high_end THEN low_end
    WHEN low_end = 'LL' AND high_end = 'L' THEN 'L'
    WHEN low_end = 'H' AND high_end = 'HH' THEN 'H'
  END;
END $$;

-- By whose data a result is evaluated (a merged duplicate is the person who lives on) and the day of collection; without a
-- time of collection the day of receipt.
CREATE FUNCTION evaluation_subject(of_patient uuid, of_specimen uuid, OUT sex text, OUT born date, OUT drawn date)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT coalesce(root.sex, p.sex), coalesce(root.birth_date, p.birth_date) INTO sex, born
    FROM public.patient p LEFT JOIN public.patient root ON root.id = p.merged_into WHERE p.id = of_patient;
  SELECT public.lab_day(coalesce(s.collected_at, s.received_at)) INTO drawn FROM public.specimen s WHERE s.id = of_specimen;
END $$;

-- The evaluation of a number: the range, the limits, the flag, and where no range holds, the reason.
--   * The ranges are those in force now, or at `as_of`.
--   * Of the ranges that fit by age one for the sex stands before one for everybody. A critical limit that it does not state
--     is that of the range for everybody: a range for one sex adds to it and hides no limit.
--   * Sex other or unknown: what is critical for either sex is critical, so the stricter limit of each side holds. What is usual
--     is what holds for everybody, or what both sexes share; else nothing is said.
CREATE FUNCTION evaluation(of_test text, of_sex text, born date, drawn date, as_of timestamptz, number numeric, comparator text,
  OUT ref_range_id uuid, OUT ref_low numeric, OUT ref_high numeric, OUT crit_low numeric, OUT crit_high numeric, OUT flag text, OUT no_range text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one public.ref_range;
  female public.ref_range;
  male public.ref_range;
  everybody public.ref_range;
  own public.ref_range;
  usual public.ref_range;
  offered boolean := false;
  by_sex boolean := of_sex IN ('F', 'M');
BEGIN
  IF number IS NULL THEN
    RETURN;
  END IF;
  -- The first that fits is taken: the one that begins at the highest age, then the newest.
  FOR one IN
    SELECT g.* FROM public.ref_range g
     WHERE g.test_code = of_test
       AND (as_of IS NULL AND g.valid_to IS NULL
            OR as_of IS NOT NULL AND g.valid_from <= as_of AND (g.valid_to IS NULL OR as_of < g.valid_to))
     ORDER BY born + g.age_from::interval DESC, g.valid_from DESC, g.id DESC
  LOOP
    offered := true;
    CONTINUE WHEN drawn IS NULL OR drawn < born OR drawn < born + one.age_from::interval OR drawn >= born + one.age_to::interval;
    IF one.sex = 'F' AND female.id IS NULL THEN
      female := one;
    ELSIF one.sex = 'M' AND male.id IS NULL THEN
      male := one;
    ELSIF one.sex IS NULL AND everybody.id IS NULL THEN
      everybody := one;
    END IF;
  END LOOP;
  IF by_sex THEN
    IF of_sex = 'F' THEN
      own := female;
    ELSE
      own := male;
    END IF;
    crit_low := coalesce(own.crit_low, everybody.crit_low);
    crit_high := coalesce(own.crit_high, everybody.crit_high);
    IF own.id IS NOT NULL THEN
      usual := own;
    ELSE
      usual := everybody;
    END IF;
    ref_range_id := usual.id;
  ELSE
    -- greatest and least pass over what is null.
    crit_low := greatest(female.crit_low, male.crit_low, everybody.crit_low);
    crit_high := least(female.crit_high, male.crit_high, everybody.crit_high);
    IF everybody.id IS NOT NULL THEN
      usual := everybody;
      ref_range_id := usual.id;
    ELSIF female.id IS NOT NULL AND male.id IS NOT NULL
          AND female.low IS NOT DISTINCT FROM male.low AND female.high IS NOT DISTINCT FROM male.high THEN
      usual := female; -- of two ranges: neither is the one
    END IF;
  END IF;
  ref_low := usual.low;
  ref_high := usual.high;
  flag := public.flag_of(number, comparator, ref_low, ref_high, crit_low, crit_high);
  IF usual.id IS NULL THEN
    no_range := CASE
      WHEN drawn IS NULL OR drawn < born THEN 'collected-before-birth'
      WHEN female.id IS NOT NULL OR male.id IS NOT NULL THEN 'no-range-for-sex'
      WHEN offered THEN 'no-range-for-age'
      ELSE 'no-range-for-test'
    END;
  END IF;
END $$;
CREATE INDEX ref_range_of_test ON ref_range (test_code);

-- Whether a value is or may be critical. It looks at the value itself and not only at its flag.
CREATE OR REPLACE FUNCTION may_be_critical(flag text, value_num numeric, comparator text, crit_low numeric, crit_high numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(flag IN ('LL', 'HH'), false)
  OR CASE
       WHEN comparator IN ('<', '<=') THEN crit_low IS NOT NULL OR coalesce(value_num > crit_high, false)
       WHEN comparator IN ('>', '>=') THEN crit_high IS NOT NULL OR coalesce(value_num < crit_low, false)
       ELSE coalesce(value_num < crit_low, false) OR coalesce(value_num > crit_high, false)
     END;

-- Whether a notice of one value counts: it was read back, unless the laboratory does without.
CREATE FUNCTION is_notified(of_result uuid, of_rev int, of_amendment uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM public.critical_notice c
    WHERE c.result_id = of_result AND c.rev = of_rev AND c.amendment_id IS NOT DISTINCT FROM of_amendment
      AND (c.read_back OR (SELECT p.accept_notice_without_read_back FROM public.lab_profile p)));
END $$;

-- Whether a value is of the kind and in the unit of its test.
CREATE FUNCTION fits_test(of_test text, value_num numeric, value_text text, unit text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM public.test_def t
    WHERE t.code = of_test AND CASE t.value_type
      WHEN 'quantity' THEN value_num IS NOT NULL AND fits_test.unit IS NOT DISTINCT FROM t.unit
      WHEN 'coded' THEN value_text = ANY (t.allowed_values) AND fits_test.unit IS NULL
      WHEN 'text' THEN value_text IS NOT NULL AND fits_test.unit IS NULL
      ELSE false END);
END $$;

ALTER TABLE result
  ADD COLUMN no_range text CHECK (no_range IN ('no-range-for-test', 'no-range-for-age', 'no-range-for-sex', 'collected-before-birth')),
  ADD COLUMN evaluated_at timestamptz,
  -- A released value whose evaluation would be another one by what is known now.
  ADD COLUMN outdated_since timestamptz,
  ADD COLUMN outdated_reason text CHECK (char_length(outdated_reason) BETWEEN 1 AND 500),
  ADD CONSTRAINT result_outdated CHECK ((outdated_since IS NULL) = (outdated_reason IS NULL)),
  -- The guard evaluates now. The flag of a person of unknown sex may follow from limits of more than one range.
  DROP CONSTRAINT result_flag_follows;
ALTER TABLE result_revision
  ADD COLUMN no_range text,
  ADD COLUMN evaluated_at timestamptz,
  ADD COLUMN outdated_since timestamptz,
  ADD COLUMN outdated_reason text;
ALTER TABLE result_amendment
  ADD COLUMN ref_range_id uuid REFERENCES ref_range (id),
  ADD COLUMN ref_low numeric,
  ADD COLUMN ref_high numeric,
  ADD COLUMN crit_low numeric,
  ADD COLUMN crit_high numeric,
  ADD COLUMN no_range text,
  ADD COLUMN evaluated_at timestamptz;

-- Ranges.

CREATE FUNCTION ref_range_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  born constant date := '2000-01-01';
BEGIN
  IF NEW.valid_to IS NOT NULL OR NEW.valid_from > clock_timestamp() THEN
    RAISE EXCEPTION 'a range holds from now on' USING ERRCODE = 'LAB16';
  END IF;
  IF EXISTS (SELECT FROM ref_range o WHERE o.test_code = NEW.test_code AND o.sex IS NOT DISTINCT FROM NEW.sex AND o.valid_to IS NULL
               AND born + NEW.age_from::interval < coalesce(born + o.age_to::interval, 'infinity')
               AND born + o.age_from::interval < coalesce(born + NEW.age_to::interval, 'infinity')) THEN
    RAISE EXCEPTION 'another range for the same sex holds for part of these ages; close it first' USING ERRCODE = 'LAB16';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER ref_range_insert_guard BEFORE INSERT ON ref_range FOR EACH ROW EXECUTE FUNCTION ref_range_insert_guard();

-- People.

CREATE FUNCTION patient_times_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  born date := NEW.birth_date;
BEGIN
  IF (TG_OP = 'INSERT' OR OLD.birth_date <> NEW.birth_date) AND NEW.birth_date > lab_day(now()) THEN
    RAISE EXCEPTION 'nobody is born in the future' USING ERRCODE = 'LAB13';
  END IF;
  IF TG_OP = 'UPDATE' AND (OLD.birth_date, OLD.merged_into) IS DISTINCT FROM (NEW.birth_date, NEW.merged_into) THEN
    IF NEW.merged_into IS NOT NULL THEN
      SELECT p.birth_date INTO born FROM patient p WHERE p.id = NEW.merged_into;
    END IF;
    IF EXISTS (SELECT FROM patient p JOIN lab_order o ON o.patient_id = p.id JOIN specimen s ON s.order_id = o.id
                WHERE (p.id = NEW.id OR p.merged_into = NEW.id) AND s.status <> 'rejected'
                  AND lab_day(coalesce(s.collected_at, s.received_at)) < born) THEN
      RAISE EXCEPTION 'a specimen was collected before this date of birth' USING ERRCODE = 'LAB13';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER patient_times_guard BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION patient_times_guard();

-- Specimens.

ALTER TABLE specimen
  -- Given with a correction; the guard moves them into the revision.
  ADD COLUMN change_reason text CHECK (char_length(change_reason) BETWEEN 1 AND 500),
  ADD COLUMN changed_by uuid REFERENCES staff (id);

-- What was recorded of a specimen's collection and receipt before it was corrected, written by the guard alone.
CREATE TABLE specimen_revision (
  specimen_id   uuid NOT NULL REFERENCES specimen (id),
  version       int NOT NULL,
  status        text NOT NULL,
  collected_at  timestamptz,
  collected_by  uuid,
  received_at   timestamptz,
  received_by   uuid,
  superseded_at timestamptz NOT NULL DEFAULT now(),
  superseded_by uuid NOT NULL,
  reason        text NOT NULL,
  PRIMARY KEY (specimen_id, version)
);
CREATE TRIGGER specimen_revision_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON specimen_revision
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- SECURITY DEFINER: it writes specimen_revision, which the laboratory's role can only read.
CREATE OR REPLACE FUNCTION public.specimen_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  collection_changed boolean := (OLD.collected_at, OLD.collected_by) IS DISTINCT FROM (NEW.collected_at, NEW.collected_by);
  receipt_changed boolean := (OLD.received_at, OLD.received_by) IS DISTINCT FROM (NEW.received_at, NEW.received_by);
  rejection_changed boolean := (OLD.reject_reason, OLD.rejected_by) IS DISTINCT FROM (NEW.reject_reason, NEW.rejected_by);
  born date;
BEGIN
  IF (OLD.id, OLD.order_id, OLD.seq, OLD.barcode, OLD.specimen_type, OLD.replaces)
     IS DISTINCT FROM (NEW.id, NEW.order_id, NEW.seq, NEW.barcode, NEW.specimen_type, NEW.replaces) THEN
    RAISE EXCEPTION 'a specimen keeps its order, barcode and type' USING ERRCODE = 'LAB05';
  END IF;
  IF OLD.status = NEW.status AND OLD.status IN ('collected', 'received', 'disposed') AND (collection_changed OR receipt_changed) AND NOT rejection_changed THEN
    IF OLD.status = 'collected' AND receipt_changed THEN
      RAISE EXCEPTION 'a specimen that was not received has no receipt to correct' USING ERRCODE = 'LAB02';
    END IF;
    IF NEW.change_reason IS NULL OR NEW.changed_by IS NULL THEN
      RAISE EXCEPTION 'when a specimen was collected and received is corrected for a reason' USING ERRCODE = 'LAB04';
    END IF;
    INSERT INTO public.specimen_revision (specimen_id, version, status, collected_at, collected_by, received_at, received_by, superseded_by, reason)
    VALUES (OLD.id, OLD.version, OLD.status, OLD.collected_at, OLD.collected_by, OLD.received_at, OLD.received_by, NEW.changed_by, NEW.change_reason);
  ELSE
    IF (OLD.status, NEW.status) NOT IN (
         ('expected', 'collected'), ('expected', 'received'), ('collected', 'received'),
         ('collected', 'rejected'), ('received', 'rejected'), ('received', 'disposed')) THEN
      RAISE EXCEPTION 'a % specimen cannot become %', OLD.status, NEW.status USING ERRCODE = 'LAB02';
    END IF;
    IF (OLD.status <> 'expected' AND collection_changed) OR (OLD.status IN ('received', 'disposed') AND receipt_changed) THEN
      RAISE EXCEPTION 'when a specimen was collected and received stays as recorded' USING ERRCODE = 'LAB03';
    END IF;
    IF OLD.status = 'expected' AND EXISTS (
         SELECT FROM public.lab_order o WHERE o.id = NEW.order_id AND o.status NOT IN ('registered', 'in_progress')) THEN
      RAISE EXCEPTION 'the order is closed' USING ERRCODE = 'LAB02';
    END IF;
    IF NEW.status = 'rejected' AND EXISTS (
         SELECT FROM public.result r WHERE r.specimen_id = NEW.id AND r.status NOT IN ('pending', 'cancelled', 'voided')) THEN
      RAISE EXCEPTION 'specimen % carries values; send them back or void them first', OLD.barcode USING ERRCODE = 'LAB10';
    END IF;
  END IF;
  IF collection_changed OR receipt_changed THEN
    SELECT coalesce(root.birth_date, p.birth_date) INTO born
      FROM public.lab_order o JOIN public.patient p ON p.id = o.patient_id LEFT JOIN public.patient root ON root.id = p.merged_into
     WHERE o.id = NEW.order_id;
    IF greatest(NEW.collected_at, NEW.received_at) > clock_timestamp() + interval '6 minutes' THEN
      RAISE EXCEPTION 'a specimen is not collected or received in the future' USING ERRCODE = 'LAB13';
    END IF;
    IF public.lab_day(least(NEW.collected_at, NEW.received_at)) < born THEN
      RAISE EXCEPTION 'a specimen is not collected or received before the patient is born' USING ERRCODE = 'LAB13';
    END IF;
  END IF;
  NEW.change_reason := NULL; -- it lives in the revision now
  NEW.changed_by := NULL;
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;

-- Notices.

CREATE OR REPLACE FUNCTION critical_notice_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  since timestamptz;
BEGIN
  -- A value is there when it was entered, or before that when the instrument had it.
  SELECT CASE WHEN r.resulted_at IS NULL THEN r.entered_at
              ELSE least(r.entered_at, greatest(r.resulted_at, s.collected_at, s.received_at)) END INTO since
    FROM result r JOIN specimen s ON s.id = r.specimen_id
   WHERE r.id = NEW.result_id AND r.rev = NEW.rev AND r.amendment_id IS NOT DISTINCT FROM NEW.amendment_id
     AND may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high);
  IF NOT FOUND THEN
    SELECT a.entered_at INTO since FROM result_amendment a
     WHERE a.id = NEW.amendment_id AND a.result_id = NEW.result_id AND a.base_rev = NEW.rev - 1 AND a.status = 'proposed'
       AND may_be_critical(a.flag, a.value_num, a.comparator, a.crit_low, a.crit_high);
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no critical value of that revision to give notice of' USING ERRCODE = 'LAB02';
    END IF;
  END IF;
  -- People note the minute.
  IF NEW.notified_at < date_trunc('minute', since) THEN
    RAISE EXCEPTION 'nobody can be told of a value before it is there' USING ERRCODE = 'LAB13';
  END IF;
  IF NEW.notified_at > clock_timestamp() + interval '6 minutes' THEN
    RAISE EXCEPTION 'a notice is not given in the future' USING ERRCODE = 'LAB13';
  END IF;
  NEW.recorded_at := now();
  RETURN NEW;
END $$;

-- Amendments.

CREATE OR REPLACE FUNCTION result_amendment_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  amended result;
  e record;
BEGIN
  SELECT * INTO amended FROM result r WHERE r.id = NEW.result_id;
  SELECT v.* INTO e FROM evaluation_subject(amended.patient_id, amended.specimen_id) AS s
   CROSS JOIN LATERAL evaluation(amended.test_code, s.sex, s.born, s.drawn, NULL, NEW.value_num, NEW.comparator) AS v;
  IF TG_OP = 'INSERT' THEN
    IF NEW.status <> 'proposed' OR NEW.verified_by IS NOT NULL OR NEW.self_verified THEN
      RAISE EXCEPTION 'an amendment begins as a proposal' USING ERRCODE = 'LAB07';
    END IF;
    IF amended.rev IS DISTINCT FROM NEW.base_rev OR amended.status NOT IN ('released', 'corrected', 'amended') THEN
      RAISE EXCEPTION 'only the present value of a released result can be amended' USING ERRCODE = 'LAB02';
    END IF;
    -- The unit stays that of the result.
    IF NOT fits_test(amended.test_code, NEW.value_num, NEW.value_text, (SELECT t.unit FROM test_def t WHERE t.code = amended.test_code)) THEN
      RAISE EXCEPTION 'the value does not fit test %', amended.test_code USING ERRCODE = 'LAB15';
    END IF;
    IF NEW.kind = 'amended' AND (amended.value_num::text, amended.comparator, amended.value_text)
                                IS DISTINCT FROM (NEW.value_num::text, NEW.comparator, NEW.value_text) THEN
      RAISE EXCEPTION 'another value is a correction' USING ERRCODE = 'LAB15';
    END IF;
    NEW.entered_at := now();
  ELSE
    IF OLD.status <> 'proposed' THEN
      RAISE EXCEPTION 'an amendment is verified or withdrawn once' USING ERRCODE = 'LAB02';
    END IF;
    IF (OLD.id, OLD.result_id, OLD.base_rev, OLD.kind, OLD.value_num::text, OLD.comparator, OLD.value_text, OLD.comment,
        OLD.delta_flag, OLD.delta_previous::text, OLD.reason, OLD.entered_by, OLD.entered_at) IS DISTINCT FROM
       (NEW.id, NEW.result_id, NEW.base_rev, NEW.kind, NEW.value_num::text, NEW.comparator, NEW.value_text, NEW.comment,
        NEW.delta_flag, NEW.delta_previous::text, NEW.reason, NEW.entered_by, NEW.entered_at) THEN
      RAISE EXCEPTION 'an amendment is not edited: withdraw it and enter another'
        USING ERRCODE = CASE WHEN NEW.status = 'proposed' THEN 'LAB02' ELSE 'LAB03' END;
    END IF;
    IF NEW.status = 'proposed' AND (OLD.verified_by, OLD.verified_at, OLD.self_verified) IS DISTINCT FROM (NEW.verified_by, NEW.verified_at, NEW.self_verified) THEN
      RAISE EXCEPTION 'an amendment is verified or withdrawn once' USING ERRCODE = 'LAB02';
    END IF;
  END IF;
  IF NEW.status = 'proposed' THEN
    -- A remark leaves the evaluation as it is; a corrected value has one of its own.
    IF NEW.kind = 'amended' THEN
      NEW.ref_range_id := amended.ref_range_id;
      NEW.ref_low := amended.ref_low;
      NEW.ref_high := amended.ref_high;
      NEW.crit_low := amended.crit_low;
      NEW.crit_high := amended.crit_high;
      NEW.flag := amended.flag;
      NEW.no_range := amended.no_range;
      NEW.evaluated_at := coalesce(amended.evaluated_at, amended.entered_at);
    ELSE
      NEW.ref_range_id := e.ref_range_id;
      NEW.ref_low := e.ref_low;
      NEW.ref_high := e.ref_high;
      NEW.crit_low := e.crit_low;
      NEW.crit_high := e.crit_high;
      NEW.flag := e.flag;
      NEW.no_range := e.no_range;
      NEW.evaluated_at := clock_timestamp();
    END IF;
    RETURN NEW;
  END IF;
  IF (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.no_range, OLD.evaluated_at) IS DISTINCT FROM
     (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.no_range, NEW.evaluated_at) THEN
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
    IF NEW.kind = 'corrected' AND (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag)
                                  IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag) THEN
      RAISE EXCEPTION 'the amended value was evaluated with other data; it must be evaluated again first' USING ERRCODE = 'LAB14';
    END IF;
    NEW.verified_at := now();
  END IF;
  RETURN NEW;
END $$;

-- Results.

CREATE OR REPLACE FUNCTION result_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.status <> 'pending' OR NEW.delta_flag OR NEW.self_verified OR num_nonnulls(
       NEW.value_num, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id,
       NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.delta_previous,
       NEW.no_range, NEW.evaluated_at, NEW.outdated_since, NEW.outdated_reason,
       NEW.entered_by, NEW.entered_at, NEW.verified_by, NEW.verified_at, NEW.released_by, NEW.released_at,
       NEW.amendment_id, NEW.change_reason, NEW.closed_reason) > 0 THEN
    RAISE EXCEPTION 'a result begins as pending, with no value and no signature' USING ERRCODE = 'LAB07';
  END IF;
  IF EXISTS (SELECT FROM lab_order o WHERE o.id = NEW.order_id AND o.status NOT IN ('registered', 'in_progress')) THEN
    RAISE EXCEPTION 'the order is closed' USING ERRCODE = 'LAB02';
  END IF;
  -- FOR SHARE: a rejection of the specimen at this moment must wait and take this result along, or it would be stuck.
  PERFORM 1 FROM specimen s WHERE s.id = NEW.specimen_id AND s.status NOT IN ('rejected', 'disposed') FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'a result needs a specimen that can still be used' USING ERRCODE = 'LAB10';
  END IF;
  NEW.rev := 1;
  NEW.version := 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- SECURITY DEFINER: it writes result_revision, which the laboratory's role can only read.
CREATE OR REPLACE FUNCTION public.result_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  published constant text[] := ARRAY['released', 'corrected', 'amended'];
  -- numeric is compared as text: 5.0 and 5.00 are equal as numbers, yet not the same statement of a laboratory.
  value_changed boolean := (OLD.value_num::text, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id)
    IS DISTINCT FROM (NEW.value_num::text, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id);
  delta_changed boolean := (OLD.delta_flag, OLD.delta_previous) IS DISTINCT FROM (NEW.delta_flag, NEW.delta_previous);
  mark_changed boolean := (OLD.outdated_since, OLD.outdated_reason) IS DISTINCT FROM (NEW.outdated_since, NEW.outdated_reason);
  judged_changed boolean := delta_changed OR (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.no_range, OLD.evaluated_at)
    IS DISTINCT FROM (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.no_range, NEW.evaluated_at);
  entry_changed boolean := (OLD.entered_by, OLD.entered_at) IS DISTINCT FROM (NEW.entered_by, NEW.entered_at);
  verification_changed boolean := (OLD.verified_by, OLD.verified_at, OLD.self_verified) IS DISTINCT FROM (NEW.verified_by, NEW.verified_at, NEW.self_verified);
  release_changed boolean := (OLD.released_by, OLD.released_at) IS DISTINCT FROM (NEW.released_by, NEW.released_at);
  amendment_changed boolean := OLD.amendment_id IS DISTINCT FROM NEW.amendment_id;
  step text := OLD.status || '>' || NEW.status;
  supersedes boolean := false;
  publishes boolean := false;
  -- By what is known now; for a released result by the ranges that it was evaluated by.
  e record;
  evaluated_anew boolean := false;
  amendment public.result_amendment;
BEGIN
  IF (OLD.id, OLD.order_id, OLD.patient_id, OLD.test_code) IS DISTINCT FROM (NEW.id, NEW.order_id, NEW.patient_id, NEW.test_code)
     OR (OLD.specimen_id <> NEW.specimen_id AND NEW.status <> 'pending') THEN
    RAISE EXCEPTION 'a result cannot move to another patient, order, test or specimen' USING ERRCODE = 'LAB05';
  END IF;
  IF OLD.specimen_id <> NEW.specimen_id THEN
    PERFORM 1 FROM public.specimen s WHERE s.id = NEW.specimen_id AND s.status NOT IN ('rejected', 'disposed') FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'a result needs a specimen that can still be used' USING ERRCODE = 'LAB10';
    END IF;
  END IF;

  IF step IN ('pending>entered', 'entered>entered', 'verified>verified', 'verified>released') OR OLD.status = ANY (published) AND OLD.status = NEW.status THEN
    SELECT v.* INTO e FROM public.evaluation_subject(NEW.patient_id, NEW.specimen_id) AS s
     CROSS JOIN LATERAL public.evaluation(NEW.test_code, s.sex, s.born, s.drawn,
       CASE WHEN OLD.status = ANY (published) THEN coalesce(OLD.evaluated_at, OLD.entered_at) END, NEW.value_num, NEW.comparator) AS v;
    evaluated_anew := (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag)
      IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag)
      OR NOT OLD.status = ANY (published) AND OLD.no_range IS DISTINCT FROM e.no_range;
  END IF;
  IF mark_changed AND NOT (OLD.status = ANY (published) AND NEW.status = OLD.status) THEN
    RAISE EXCEPTION 'only a released result is marked as evaluated with other data' USING ERRCODE = 'LAB03';
  END IF;

  IF step IN ('pending>entered', 'entered>entered') THEN
    IF verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'entering a value signs nothing else' USING ERRCODE = 'LAB03';
    END IF;
    IF num_nonnulls(NEW.value_num, NEW.value_text) <> 1 OR NEW.entered_by IS NULL THEN
      RAISE EXCEPTION 'an entered result has a value and a person who entered it' USING ERRCODE = 'LAB11';
    END IF;
    -- FOR SHARE: a rejection of the specimen at this moment must wait, or it would miss this value.
    PERFORM 1 FROM public.specimen s WHERE s.id = NEW.specimen_id AND s.status = 'received' FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'a value needs a received specimen' USING ERRCODE = 'LAB10';
    END IF;
    IF (OLD.status = 'pending' OR value_changed) AND NOT public.fits_test(NEW.test_code, NEW.value_num, NEW.value_text, NEW.unit) THEN
      RAISE EXCEPTION 'the value does not fit test %: its kind or its unit', NEW.test_code USING ERRCODE = 'LAB15';
    END IF;
    supersedes := OLD.status = 'entered';
    -- The same value evaluated again was not entered again.
    IF OLD.status = 'pending' OR value_changed OR delta_changed OR OLD.entered_by <> NEW.entered_by
       OR NOT evaluated_anew THEN
      NEW.entered_at := now();
    ELSE
      NEW.entered_at := OLD.entered_at;
    END IF;
    NEW.ref_range_id := e.ref_range_id;
    NEW.ref_low := e.ref_low;
    NEW.ref_high := e.ref_high;
    NEW.crit_low := e.crit_low;
    NEW.crit_high := e.crit_high;
    NEW.flag := e.flag;
    NEW.no_range := e.no_range;
    NEW.evaluated_at := clock_timestamp();

  ELSIF step IN ('entered>pending', 'verified>pending') THEN
    IF num_nonnulls(NEW.value_num, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id,
         NEW.delta_previous, NEW.entered_by, NEW.entered_at, NEW.verified_by, NEW.verified_at) > 0 OR NEW.delta_flag OR NEW.self_verified THEN
      RAISE EXCEPTION 'a result that goes back to the bench keeps nothing, no comparator either' USING ERRCODE = 'LAB03';
    END IF;
    NEW.ref_range_id := NULL;
    NEW.ref_low := NULL;
    NEW.ref_high := NULL;
    NEW.crit_low := NULL;
    NEW.crit_high := NULL;
    NEW.flag := NULL;
    NEW.no_range := NULL;
    NEW.evaluated_at := NULL;
    supersedes := true;

  ELSIF step = 'entered>verified' THEN
    IF value_changed OR judged_changed OR entry_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'verifying changes no value, range, flag or entry' USING ERRCODE = 'LAB03';
    END IF;
    IF NEW.verified_by IS NULL THEN
      RAISE EXCEPTION 'a verification names who verified' USING ERRCODE = 'LAB11';
    END IF;
    NEW.self_verified := NEW.verified_by = NEW.entered_by;
    IF NEW.self_verified AND NOT EXISTS (SELECT FROM public.lab_profile WHERE allow_self_verify) THEN
      RAISE EXCEPTION 'the person who entered a value cannot verify it' USING ERRCODE = 'LAB08';
    END IF;
    NEW.verified_at := now();

  ELSIF step = 'verified>verified' AND evaluated_anew THEN
    -- Evaluated again: the revision keeps what was verified, and whoever releases has to have seen this version.
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'evaluating again changes no value and no signature' USING ERRCODE = 'LAB03';
    END IF;
    NEW.ref_range_id := e.ref_range_id;
    NEW.ref_low := e.ref_low;
    NEW.ref_high := e.ref_high;
    NEW.crit_low := e.crit_low;
    NEW.crit_high := e.crit_high;
    NEW.flag := e.flag;
    NEW.no_range := e.no_range;
    NEW.evaluated_at := clock_timestamp();
    supersedes := true;

  ELSIF step = 'verified>released' THEN
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR amendment_changed THEN
      RAISE EXCEPTION 'releasing changes no value, range, flag or signature' USING ERRCODE = 'LAB03';
    END IF;
    IF NEW.released_by IS NULL THEN
      RAISE EXCEPTION 'a release names who released' USING ERRCODE = 'LAB11';
    END IF;
    IF evaluated_anew THEN
      RAISE EXCEPTION 'the value was evaluated with other data; it must be evaluated again first' USING ERRCODE = 'LAB14';
    END IF;
    NEW.released_at := now();
    publishes := true;

  ELSIF step IN ('pending>cancelled', 'entered>cancelled', 'verified>cancelled')
        OR (OLD.status = ANY (published) AND NEW.status = 'voided') THEN
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'closing a result changes nothing that it says' USING ERRCODE = 'LAB03';
    END IF;
    IF NEW.closed_reason IS NULL THEN
      RAISE EXCEPTION 'a result is cancelled or voided for a reason' USING ERRCODE = 'LAB04';
    END IF;

  ELSIF OLD.status = ANY (published) AND NEW.status IN ('corrected', 'amended') AND amendment_changed THEN
    SELECT * INTO amendment FROM public.result_amendment a
     WHERE a.id = NEW.amendment_id AND a.result_id = NEW.id AND a.base_rev = OLD.rev AND a.status = 'verified' AND a.kind = NEW.status;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'an amendment needs an entry and a verification of its own' USING ERRCODE = 'LAB06';
    END IF;
    -- Taken from the amendment, whatever the caller wrote: what was verified is what is applied. The unit stays; a remark leaves
    -- the evaluation as it is, and with it the mark.
    NEW.value_num := amendment.value_num;
    NEW.comparator := amendment.comparator;
    NEW.value_text := amendment.value_text;
    NEW.comment := amendment.comment;
    NEW.unit := OLD.unit;
    NEW.ref_range_id := amendment.ref_range_id;
    NEW.ref_low := amendment.ref_low;
    NEW.ref_high := amendment.ref_high;
    NEW.crit_low := amendment.crit_low;
    NEW.crit_high := amendment.crit_high;
    NEW.flag := amendment.flag;
    NEW.no_range := amendment.no_range;
    NEW.evaluated_at := amendment.evaluated_at;
    IF NEW.status = 'corrected' THEN
      NEW.outdated_since := NULL;
      NEW.outdated_reason := NULL;
    END IF;
    NEW.delta_flag := amendment.delta_flag;
    NEW.delta_previous := amendment.delta_previous;
    NEW.instrument := OLD.instrument;
    NEW.resulted_at := OLD.resulted_at;
    NEW.import_id := OLD.import_id;
    NEW.entered_by := amendment.entered_by;
    NEW.entered_at := amendment.entered_at;
    NEW.verified_by := amendment.verified_by;
    NEW.verified_at := amendment.verified_at;
    NEW.self_verified := amendment.self_verified;
    NEW.released_by := amendment.verified_by;
    NEW.released_at := now();
    NEW.change_reason := amendment.reason;
    supersedes := true;
    publishes := true;

  ELSIF step = 'pending>pending' THEN
    -- Only the specimen may change: a replacement was collected.
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'a pending result has no value and no signature' USING ERRCODE = 'LAB03';
    END IF;

  ELSIF OLD.status = ANY (published) AND NEW.status = OLD.status AND mark_changed THEN
    -- Only the mark, and only as it is true.
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed
       OR NEW.change_reason IS NOT NULL OR NEW.closed_reason IS NOT NULL THEN
      RAISE EXCEPTION 'a mark changes nothing that a result says' USING ERRCODE = 'LAB03';
    END IF;
    IF evaluated_anew <> (NEW.outdated_since IS NOT NULL) THEN
      RAISE EXCEPTION 'the mark does not say whether the evaluation would be another one now' USING ERRCODE = 'LAB14';
    END IF;
    IF evaluated_anew THEN
      NEW.outdated_since := coalesce(OLD.outdated_since, now());
    END IF;

  ELSIF OLD.status = ANY (published) AND NEW.status IN ('corrected', 'amended') THEN
    RAISE EXCEPTION 'an amendment needs an entry and a verification of its own' USING ERRCODE = 'LAB06';
  ELSIF OLD.status = NEW.status THEN
    RAISE EXCEPTION 'a % result does not change silently', OLD.status USING ERRCODE = 'LAB03';
  ELSE
    RAISE EXCEPTION 'a % result cannot become %', OLD.status, NEW.status USING ERRCODE = 'LAB02';
  END IF;

  IF supersedes THEN
    IF NEW.change_reason IS NULL THEN
      RAISE EXCEPTION 'a value is replaced for a reason' USING ERRCODE = 'LAB04';
    END IF;
    INSERT INTO public.result_revision (
      result_id, rev, status, specimen_id, value_num, comparator, value_text, unit, comment, instrument, resulted_at, import_id,
      ref_range_id, ref_low, ref_high, crit_low, crit_high, flag, delta_flag, delta_previous,
      no_range, evaluated_at, outdated_since, outdated_reason,
      entered_by, entered_at, verified_by, verified_at, self_verified, released_by, released_at, amendment_id, superseded_by, reason)
    VALUES (
      OLD.id, OLD.rev, OLD.status, OLD.specimen_id, OLD.value_num, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id,
      OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.delta_flag, OLD.delta_previous,
      OLD.no_range, OLD.evaluated_at, OLD.outdated_since, OLD.outdated_reason,
      OLD.entered_by, OLD.entered_at, OLD.verified_by, OLD.verified_at, OLD.self_verified, OLD.released_by, OLD.released_at, OLD.amendment_id, NEW.changed_by, NEW.change_reason);
    NEW.rev := OLD.rev + 1;
  ELSE
    NEW.rev := OLD.rev;
  END IF;

  IF publishes AND public.may_be_critical(NEW.flag, NEW.value_num, NEW.comparator, NEW.crit_low, NEW.crit_high)
     AND NOT public.is_notified(NEW.id, NEW.rev, NEW.amendment_id) THEN
    RAISE EXCEPTION 'a critical value needs a recorded notice before it is released' USING ERRCODE = 'LAB09';
  END IF;

  NEW.change_reason := NULL; -- it lives in the revision now
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- What is there already: open work is evaluated by the rules above, with its former evaluation kept; and of what was released for people
-- of other or unknown sex, that is marked whose flag would be another one.

UPDATE result SET change_reason = 'evaluated again when the laboratory was upgraded'
 WHERE status IN ('entered', 'verified') AND id IN (
   SELECT r.id FROM result r CROSS JOIN LATERAL evaluation_subject(r.patient_id, r.specimen_id) AS s
    CROSS JOIN LATERAL evaluation(r.test_code, s.sex, s.born, s.drawn, NULL, r.value_num, r.comparator) AS e
    WHERE r.status IN ('entered', 'verified') AND (r.ref_range_id, r.ref_low, r.ref_high, r.crit_low, r.crit_high, r.flag, r.no_range)
          IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag, e.no_range));
UPDATE result_amendment SET evaluated_at = NULL WHERE status = 'proposed';
UPDATE result SET outdated_since = now(), outdated_reason = 'evaluated before the limits of either sex held for other and unknown sex'
 WHERE id IN (
   SELECT r.id FROM patient p JOIN result r ON r.patient_id = p.id
    CROSS JOIN LATERAL evaluation_subject(r.patient_id, r.specimen_id) AS s
    CROSS JOIN LATERAL evaluation(r.test_code, s.sex, s.born, s.drawn, r.entered_at, r.value_num, r.comparator) AS e
    WHERE s.sex IN ('O', 'U') AND r.status IN ('released', 'corrected', 'amended') AND r.flag IS DISTINCT FROM e.flag);
-- A later migration of the same transaction may change these tables: nothing must be left for its end.
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
