-- A critical value keeps its mark, and a notice says of which value it speaks.
--   * A notice names the revision of a result, or the version of an amendment, and counts for no other: times are compared for
--     plausibility alone.
--   * What counted at a release is stored with it. A setting that changes later changes no released result.
--   * An evaluation that takes the critical mark from a value that did not change leaves a record (critical_lift). The result goes back
--     to whoever verifies, and is not released before a notice exists or that person confirms it with a reason.
--   * Tests whose values are words have critical words.
--   * Whoever evaluates holds the person, so that a change of the person's data misses no value; what is released is marked whoever
--     changes these data; ranges leave no gap of days, end when they are closed, and hold for a correction of what they released.
-- Also: lists in the order of the database's own time, and files from instruments known by what they say.
--
-- SQLSTATE that the guards raise beside those of the earlier migrations
--   LAB17  the critical mark of a waiting value was lifted: a notice or a confirmation is needed

-- Critical words -----------------------------------------------------------------------------------------------------------

ALTER TABLE test_def
  -- Of a coded test some of its values; of a text test words that a critical text contains (plain_words).
  ADD COLUMN critical_values text[] CHECK (cardinality(critical_values) BETWEEN 1 AND 100),
  ADD CONSTRAINT test_def_critical_values CHECK (
    critical_values IS NULL OR value_type = 'text' OR value_type = 'coded' AND critical_values <@ allowed_values);

ALTER TABLE result
  DROP CONSTRAINT result_flag_check,
  ADD CONSTRAINT result_flag_check CHECK (flag IN ('N', 'L', 'H', 'LL', 'HH', 'AA'));
ALTER TABLE result_amendment
  DROP CONSTRAINT result_amendment_flag_check,
  ADD CONSTRAINT result_amendment_flag_check CHECK (flag IN ('N', 'L', 'H', 'LL', 'HH', 'AA'));

-- Words in the form in which they are compared: composed in one way (NFKC), in lower case, without white space, hyphens and what cannot be
-- seen (control characters and Default_Ignorable_Code_Point of UAX #44). Instruments wrap lines, also at a hyphen, and word processors write
-- hyphens and blanks of their own. The case is Unicode's, by ICU, whatever the database's locale: that of C knows ASCII alone, and in
-- Turkish I is no capital i. Dots above and the final sigma depend on the letters beside them, and are taken away.
CREATE FUNCTION plain_words(words text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT translate(replace(replace(lower(normalize(regexp_replace(normalize(words, NFKC),
    '[\s\u0001-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2800\u3000'
      '\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8'
      '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff'
      '\u02d7\u058a\u1806\u2010-\u2015\u2043\u2212\ufe58-]',
    '', 'g'), NFKC) COLLATE pg_catalog."und-x-icu"), 'ß', 'ss'), U&'\0307', ''), 'ıς', 'iσ')
$$;

CREATE FUNCTION is_critical_word(of_test text, words text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM public.test_def t CROSS JOIN unnest(t.critical_values) AS critical
     WHERE t.code = of_test
       AND CASE WHEN t.value_type = 'coded' THEN lower(critical COLLATE pg_catalog."und-x-icu") = lower(words COLLATE pg_catalog."und-x-icu")
                WHEN public.plain_words(critical) = '' THEN strpos(words, critical) > 0
                ELSE strpos(public.plain_words(words), public.plain_words(critical)) > 0 END);
END $$;

-- As before, with the critical words of tests that have no numbers; and a range for one sex that states critical limits alone leaves what
-- is usual to the range for everybody.
DROP FUNCTION evaluation(text, text, date, date, timestamptz, numeric, text);
CREATE FUNCTION evaluation(of_test text, of_sex text, born date, drawn date, as_of timestamptz, number numeric, comparator text, words text DEFAULT NULL,
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
    IF public.is_critical_word(of_test, words) THEN
      flag := 'AA';
    END IF;
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
    -- A range that states critical limits alone says nothing of what is usual.
    IF own.id IS NOT NULL AND (num_nonnulls(own.low, own.high) > 0 OR everybody.id IS NULL) THEN
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

CREATE OR REPLACE FUNCTION may_be_critical(flag text, value_num numeric, comparator text, crit_low numeric, crit_high numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(flag IN ('LL', 'HH', 'AA'), false)
  OR CASE
       WHEN comparator IN ('<', '<=') THEN crit_low IS NOT NULL OR coalesce(value_num > crit_high, false)
       WHEN comparator IN ('>', '>=') THEN crit_high IS NOT NULL OR coalesce(value_num < crit_low, false)
       ELSE coalesce(value_num < crit_low, false) OR coalesce(value_num > crit_high, false)
     END;

-- Lifted marks, and notices of one value ---------------------------------------------------------------------------------------

ALTER TABLE result_amendment
  -- Raised whenever the proposed value is evaluated otherwise.
  ADD COLUMN version int NOT NULL DEFAULT 1,
  -- Given with an evaluation; the guard moves it into what it records.
  ADD COLUMN change_reason text CHECK (char_length(change_reason) BETWEEN 1 AND 500);

-- A critical mark that an evaluation took from a value that did not change. Written by the guards alone.
CREATE TABLE critical_lift (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  result_id    uuid NOT NULL REFERENCES result (id),
  -- The amendment whose proposed value it was, if it was one.
  amendment_id uuid REFERENCES result_amendment (id),
  -- The revision of the result, or the version of the amendment, that had the mark.
  rev          int NOT NULL,
  -- Absent where a comparator left it open.
  flag         text,
  crit_low     numeric,
  crit_high    numeric,
  lifted_at    timestamptz NOT NULL DEFAULT now(),
  lifted_by    uuid REFERENCES staff (id),
  reason       text NOT NULL
);
CREATE INDEX critical_lift_result ON critical_lift (result_id);
CREATE TRIGGER critical_lift_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON critical_lift
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE result
  ADD COLUMN lift_id bigint REFERENCES critical_lift (id),
  -- Why the person who verified accepts that the mark was lifted.
  ADD COLUMN lift_confirmation text CHECK (char_length(lift_confirmation) BETWEEN 1 AND 500),
  -- The notice that counted when the result was released, or given up.
  ADD COLUMN notice_id uuid REFERENCES critical_notice (id);
ALTER TABLE result_revision
  ADD COLUMN lift_id bigint,
  ADD COLUMN lift_confirmation text,
  ADD COLUMN notice_id uuid;
ALTER TABLE result_amendment
  ADD COLUMN lift_id bigint REFERENCES critical_lift (id),
  ADD COLUMN lift_confirmation text CHECK (char_length(lift_confirmation) BETWEEN 1 AND 500),
  ADD COLUMN notice_id uuid REFERENCES critical_notice (id);

ALTER TABLE critical_notice
  ADD COLUMN amendment_version int,
  -- Whether it is certain of which value it speaks. Of a notice that an earlier version recorded it may not be.
  ADD COLUMN value_stated boolean NOT NULL DEFAULT true;

-- The notice that counts for a value: of this amendment, at one of these versions; without an amendment of one of these
-- revisions. Several revisions are one value where its mark was lifted.
CREATE FUNCTION counted_notice(of_result uuid, of_amendment uuid, since int, upto int) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT c.id FROM public.critical_notice c
     WHERE c.result_id = of_result AND c.amendment_id IS NOT DISTINCT FROM of_amendment AND c.value_stated
       AND CASE WHEN of_amendment IS NULL THEN c.rev ELSE c.amendment_version END BETWEEN since AND upto
       AND (c.read_back OR (SELECT p.accept_notice_without_read_back FROM public.lab_profile p))
     ORDER BY c.recorded_at DESC, c.id DESC LIMIT 1);
END $$;
DROP FUNCTION is_notified(uuid, int, uuid);

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
     AND (may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high) OR r.open AND r.lift_id IS NOT NULL
          OR r.outdated_since IS NOT NULL AND would_be_critical(r.id));
  IF FOUND THEN
    NEW.amendment_version := (SELECT a.version FROM result_amendment a WHERE a.id = NEW.amendment_id);
  ELSE
    SELECT a.entered_at INTO since FROM result_amendment a
     WHERE a.id = NEW.amendment_id AND a.result_id = NEW.result_id AND a.base_rev = NEW.rev - 1 AND a.status = 'proposed'
       AND a.version = NEW.amendment_version
       AND (may_be_critical(a.flag, a.value_num, a.comparator, a.crit_low, a.crit_high) OR a.lift_id IS NOT NULL);
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
  NEW.value_stated := true;
  NEW.recorded_at := now();
  RETURN NEW;
END $$;

-- People, ranges and time ----------------------------------------------------------------------------------------------------

-- By whose data a result is evaluated: those of the person who lives on, however many merges lead there.
CREATE OR REPLACE FUNCTION evaluation_subject(of_patient uuid, of_specimen uuid, OUT sex text, OUT born date, OUT drawn date)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  next uuid := of_patient;
BEGIN
  FOR step IN 1 .. 32 LOOP
    EXIT WHEN next IS NULL;
    SELECT p.sex, p.birth_date, p.merged_into INTO sex, born, next FROM public.patient p WHERE p.id = next;
  END LOOP;
  SELECT public.lab_day(coalesce(s.collected_at, s.received_at)) INTO drawn FROM public.specimen s WHERE s.id = of_specimen;
END $$;

-- Keeps the data by which a person's results are evaluated as they are until the transaction ends. A change of them waits, and then
-- finds every value; or it is waited for.
CREATE FUNCTION lock_person(of_patient uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  next uuid := of_patient;
BEGIN
  FOR step IN 1 .. 32 LOOP
    EXIT WHEN next IS NULL;
    SELECT p.merged_into INTO next FROM public.patient p WHERE p.id = next FOR SHARE;
  END LOOP;
END $$;

-- The evaluation of a corrected value: by the ranges in force now, and where these state no critical limit any more, or are gone, by
-- those by which the value was released that it corrects. `as_of` is the time of the ranges, absent for now.
CREATE FUNCTION correction_evaluation(of_result uuid, number numeric, comparator text, words text,
  OUT ref_range_id uuid, OUT ref_low numeric, OUT ref_high numeric, OUT crit_low numeric, OUT crit_high numeric, OUT flag text, OUT no_range text,
  OUT as_of timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  corrected public.result;
  subject record;
  here record;
  before record;
BEGIN
  SELECT r.* INTO corrected FROM public.result r WHERE r.id = of_result;
  SELECT s.* INTO subject FROM public.evaluation_subject(corrected.patient_id, corrected.specimen_id) AS s;
  SELECT v.* INTO here FROM public.evaluation(corrected.test_code, subject.sex, subject.born, subject.drawn, NULL, number, comparator, words) AS v;
  IF number IS NOT NULL THEN
    SELECT v.* INTO before FROM public.evaluation(corrected.test_code, subject.sex, subject.born, subject.drawn,
      coalesce(corrected.evaluated_at, corrected.entered_at), number, comparator, words) AS v;
    IF here.no_range IS NOT NULL AND before.no_range IS NULL AND NOT public.may_be_critical(here.flag, number, comparator, here.crit_low, here.crit_high)
       OR (here.crit_low IS NULL AND before.crit_low IS NOT NULL OR here.crit_high IS NULL AND before.crit_high IS NOT NULL)
          AND public.may_be_critical(before.flag, number, comparator, before.crit_low, before.crit_high)
          AND NOT public.may_be_critical(here.flag, number, comparator, here.crit_low, here.crit_high) THEN
      here := before;
      as_of := coalesce(corrected.evaluated_at, corrected.entered_at);
    END IF;
  END IF;
  ref_range_id := here.ref_range_id;
  ref_low := here.ref_low;
  ref_high := here.ref_high;
  crit_low := here.crit_low;
  crit_high := here.crit_high;
  flag := here.flag;
  no_range := here.no_range;
END $$;

-- Whether one age comes before another for some people and not for others: P1M and P30D, P18Y and P6574D. Where one range ends so and the
-- next begins so, some people have none for a few days. Four years of births have every length of a month and a year.
CREATE FUNCTION ages_cross(one text, other text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF one IS NULL OR other IS NULL OR one = other THEN
    RETURN false;
  END IF;
  RETURN (SELECT count(DISTINCT sign(extract(epoch FROM (d.born + one::interval) - (d.born + other::interval)))) > 1
            FROM (SELECT date '2000-01-01' + n AS born FROM generate_series(0, 1460) AS n) AS d);
END $$;

CREATE OR REPLACE FUNCTION ref_range_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  born constant date := '2000-01-01';
BEGIN
  IF NEW.valid_to IS NOT NULL OR NEW.valid_from > clock_timestamp() THEN
    RAISE EXCEPTION 'a range holds from now on' USING ERRCODE = 'LAB16';
  END IF;
  -- Two at once: the second waits for the first, and then sees it.
  PERFORM 1 FROM test_def t WHERE t.code = NEW.test_code FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM ref_range o WHERE o.test_code = NEW.test_code AND o.sex IS NOT DISTINCT FROM NEW.sex AND o.valid_to IS NULL
               AND born + NEW.age_from::interval < coalesce(born + o.age_to::interval, 'infinity')
               AND born + o.age_from::interval < coalesce(born + NEW.age_to::interval, 'infinity')) THEN
    RAISE EXCEPTION 'another range for the same sex holds for part of these ages; close it first' USING ERRCODE = 'LAB16';
  END IF;
  IF EXISTS (SELECT FROM ref_range o WHERE o.test_code = NEW.test_code AND o.valid_to IS NULL
               AND (ages_cross(NEW.age_from, o.age_to) OR ages_cross(o.age_from, NEW.age_to))) THEN
    RAISE EXCEPTION 'one range ends and another begins on the same day for some people only; write both ages in the same units'
      USING ERRCODE = 'LAB16';
  END IF;
  RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION ref_range_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF OLD.valid_to IS NOT NULL OR NEW.valid_to IS NULL
     OR (OLD.id, OLD.test_code, OLD.sex, OLD.age_from, OLD.age_to, OLD.low, OLD.high, OLD.crit_low, OLD.crit_high, OLD.valid_from)
        IS DISTINCT FROM
        (NEW.id, NEW.test_code, NEW.sex, NEW.age_from, NEW.age_to, NEW.low, NEW.high, NEW.crit_low, NEW.crit_high, NEW.valid_from) THEN
    RAISE EXCEPTION 'a reference range is closed and replaced, never edited' USING ERRCODE = 'LAB03';
  END IF;
  -- Now, whatever the caller wrote; not before it began, where the clock was set back.
  NEW.valid_to := greatest(now(), OLD.valid_from);
  RETURN NEW;
END $$;

-- Whether a released value would be critical by what is known now, by the ranges that it was evaluated by.
CREATE FUNCTION would_be_critical(of_result uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce((
    SELECT public.may_be_critical(e.flag, x.value_num, x.comparator, e.crit_low, e.crit_high)
      FROM public.result x
     CROSS JOIN LATERAL public.evaluation_subject(x.patient_id, x.specimen_id) AS s
     CROSS JOIN LATERAL public.evaluation(x.test_code, s.sex, s.born, s.drawn, coalesce(x.evaluated_at, x.entered_at), x.value_num, x.comparator) AS e
     WHERE x.id = of_result), false);
END $$;

-- When a value is evaluated: not before the ranges that are in force began, where the clock was set back.
CREATE FUNCTION evaluation_time(of_test text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN greatest(clock_timestamp(), (SELECT max(g.valid_from) FROM public.ref_range g WHERE g.test_code = of_test));
END $$;

-- A transaction that reads as of its beginning evaluates by data that others have changed meanwhile.
CREATE FUNCTION refuse_stale_reads() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') = 'repeatable read' THEN
    RAISE EXCEPTION 'a transaction that does not see what others change writes no evaluation; use READ COMMITTED' USING ERRCODE = 'LAB14';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER a_result_reads BEFORE INSERT OR UPDATE ON result FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_result_amendment_reads BEFORE INSERT OR UPDATE ON result_amendment FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_critical_notice_reads BEFORE INSERT ON critical_notice FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_ref_range_reads BEFORE INSERT OR UPDATE ON ref_range FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_patient_reads BEFORE INSERT OR UPDATE ON patient FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_specimen_reads BEFORE INSERT OR UPDATE ON specimen FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_test_def_reads BEFORE INSERT OR UPDATE ON test_def FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();
CREATE TRIGGER a_lab_profile_reads BEFORE UPDATE ON lab_profile FOR EACH STATEMENT EXECUTE FUNCTION refuse_stale_reads();

-- Marks those of these released results that would be evaluated otherwise now, and takes the mark from the others.
CREATE FUNCTION mark_outdated(ids uuid[], why text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE public.result r
     SET outdated_since = CASE WHEN d.differs THEN now() END, outdated_reason = CASE WHEN d.differs THEN why END
    FROM (SELECT x.id, (x.ref_range_id, x.ref_low, x.ref_high, x.crit_low, x.crit_high, x.flag)
                       IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag) AS differs
            FROM public.result x
           CROSS JOIN LATERAL public.evaluation_subject(x.patient_id, x.specimen_id) AS s
           CROSS JOIN LATERAL public.evaluation(x.test_code, s.sex, s.born, s.drawn, coalesce(x.evaluated_at, x.entered_at), x.value_num, x.comparator) AS e
           WHERE x.id = ANY (ids) AND x.status IN ('released', 'corrected', 'amended') AND x.value_num IS NOT NULL) AS d
   WHERE r.id = d.id AND d.differs <> (r.outdated_since IS NOT NULL);
END $$;

-- Whoever changes what released results were evaluated by: at the end of the transaction, after those who do it with more to say.
CREATE FUNCTION patient_marks() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM mark_outdated(ARRAY(
    WITH RECURSIVE person AS (
      SELECT NEW.id UNION SELECT p.id FROM patient p JOIN person ON p.merged_into = person.id)
    SELECT r.id FROM result r JOIN person ON person.id = r.patient_id WHERE r.status IN ('released', 'corrected', 'amended')),
    'the patient''s data were changed');
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER patient_marks AFTER UPDATE ON patient DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN ((OLD.sex, OLD.birth_date, OLD.merged_into) IS DISTINCT FROM (NEW.sex, NEW.birth_date, NEW.merged_into)) EXECUTE FUNCTION patient_marks();

CREATE FUNCTION specimen_marks() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM mark_outdated(ARRAY(
    SELECT r.id FROM result r WHERE r.specimen_id = NEW.id AND r.status IN ('released', 'corrected', 'amended')),
    'when the specimen was collected or received was changed');
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER specimen_marks AFTER UPDATE ON specimen DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.status = NEW.status AND (OLD.collected_at, OLD.received_at) IS DISTINCT FROM (NEW.collected_at, NEW.received_at))
  EXECUTE FUNCTION specimen_marks();

-- The released results from specimens that were drawn on another day by another time zone.
CREATE FUNCTION drawn_on_another_day(zone text, other text) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT r.id FROM public.result r JOIN public.specimen s ON s.id = r.specimen_id
    WHERE r.status IN ('released', 'corrected', 'amended')
      AND (coalesce(s.collected_at, s.received_at) AT TIME ZONE zone)::date <> (coalesce(s.collected_at, s.received_at) AT TIME ZONE other)::date;
END $$;
CREATE FUNCTION lab_profile_marks() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM mark_outdated(ARRAY(SELECT drawn_on_another_day(OLD.tz, NEW.tz)), 'the laboratory''s time zone was changed');
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lab_profile_marks AFTER UPDATE ON lab_profile DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.tz IS DISTINCT FROM NEW.tz) EXECUTE FUNCTION lab_profile_marks();

CREATE OR REPLACE FUNCTION result_insert_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.status <> 'pending' OR NEW.delta_flag OR NEW.self_verified OR num_nonnulls(
       NEW.value_num, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id,
       NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.delta_previous,
       NEW.no_range, NEW.evaluated_at, NEW.outdated_since, NEW.outdated_reason,
       NEW.entered_by, NEW.entered_at, NEW.verified_by, NEW.verified_at, NEW.released_by, NEW.released_at,
       NEW.amendment_id, NEW.change_reason, NEW.closed_reason, NEW.lift_id, NEW.lift_confirmation, NEW.notice_id) > 0 THEN
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

-- SECURITY DEFINER: it writes critical_lift, which the laboratory's role can only read.
CREATE OR REPLACE FUNCTION public.result_amendment_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  amended public.result;
  e record;
  critical boolean;
BEGIN
  SELECT * INTO amended FROM public.result r WHERE r.id = NEW.result_id;
  SELECT v.* INTO e FROM public.correction_evaluation(NEW.result_id, NEW.value_num, NEW.comparator, NEW.value_text) AS v;
  IF TG_OP = 'INSERT' THEN
    IF NEW.status <> 'proposed' OR NEW.verified_by IS NOT NULL OR NEW.self_verified THEN
      RAISE EXCEPTION 'an amendment begins as a proposal' USING ERRCODE = 'LAB07';
    END IF;
    IF amended.rev IS DISTINCT FROM NEW.base_rev OR amended.status NOT IN ('released', 'corrected', 'amended') THEN
      RAISE EXCEPTION 'only the present value of a released result can be amended' USING ERRCODE = 'LAB02';
    END IF;
    -- The unit stays that of the result.
    IF NOT public.fits_test(amended.test_code, NEW.value_num, NEW.value_text, (SELECT t.unit FROM public.test_def t WHERE t.code = amended.test_code)) THEN
      RAISE EXCEPTION 'the value does not fit test %', amended.test_code USING ERRCODE = 'LAB15';
    END IF;
    IF NEW.kind = 'amended' AND (amended.value_num::text, amended.comparator, amended.value_text)
                                IS DISTINCT FROM (NEW.value_num::text, NEW.comparator, NEW.value_text) THEN
      RAISE EXCEPTION 'another value is a correction' USING ERRCODE = 'LAB15';
    END IF;
    NEW.entered_at := now();
    NEW.version := 1;
    NEW.lift_id := NULL;
    NEW.lift_confirmation := NULL;
    NEW.notice_id := NULL;
    NEW.change_reason := NULL;
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
    -- Written here alone, whatever the caller wrote.
    NEW.version := OLD.version;
    NEW.lift_id := OLD.lift_id;
    NEW.notice_id := NULL;
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
      NEW.lift_id := amended.lift_id;
      NEW.lift_confirmation := amended.lift_confirmation;
    ELSE
      NEW.ref_range_id := e.ref_range_id;
      NEW.ref_low := e.ref_low;
      NEW.ref_high := e.ref_high;
      NEW.crit_low := e.crit_low;
      NEW.crit_high := e.crit_high;
      NEW.flag := e.flag;
      NEW.no_range := e.no_range;
      NEW.evaluated_at := coalesce(e.as_of, public.evaluation_time(amended.test_code));
      NEW.lift_confirmation := NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.no_range) IS DISTINCT FROM
                            (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.no_range) THEN
      NEW.version := OLD.version + 1;
      IF public.may_be_critical(NEW.flag, NEW.value_num, NEW.comparator, NEW.crit_low, NEW.crit_high) THEN
        NEW.lift_id := NULL;
      ELSIF public.may_be_critical(OLD.flag, OLD.value_num, OLD.comparator, OLD.crit_low, OLD.crit_high) THEN
        INSERT INTO public.critical_lift (result_id, amendment_id, rev, flag, crit_low, crit_high, reason)
        VALUES (OLD.result_id, OLD.id, OLD.version, OLD.flag, OLD.crit_low, OLD.crit_high, coalesce(NEW.change_reason, 'evaluated again'))
        RETURNING id INTO NEW.lift_id;
      END IF;
    END IF;
    NEW.change_reason := NULL; -- it lives beside the amendment now
    RETURN NEW;
  END IF;
  NEW.change_reason := NULL;
  IF (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.no_range, OLD.evaluated_at) IS DISTINCT FROM
     (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.no_range, NEW.evaluated_at) THEN
    RAISE EXCEPTION 'an amendment is not edited: withdraw it and enter another' USING ERRCODE = 'LAB03';
  END IF;
  IF NEW.status = 'verified' THEN
    NEW.self_verified := NEW.verified_by = NEW.entered_by;
    IF NEW.verified_by IS NULL THEN
      RAISE EXCEPTION 'a verification names who verified' USING ERRCODE = 'LAB11';
    END IF;
    IF NEW.self_verified AND NOT EXISTS (SELECT FROM public.lab_profile WHERE allow_self_verify) THEN
      RAISE EXCEPTION 'the person who entered an amendment cannot verify it' USING ERRCODE = 'LAB08';
    END IF;
    IF NEW.kind = 'corrected' AND (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag)
                                  IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag) THEN
      RAISE EXCEPTION 'the amended value was evaluated with other data; it must be evaluated again first' USING ERRCODE = 'LAB14';
    END IF;
    NEW.verified_at := now();
  END IF;
  IF NEW.lift_id IS NULL OR NEW.status <> 'verified' THEN
    NEW.lift_confirmation := OLD.lift_confirmation;
  END IF;
  critical := public.may_be_critical(NEW.flag, NEW.value_num, NEW.comparator, NEW.crit_low, NEW.crit_high);
  -- What counts at this moment is what counted, for good.
  IF critical OR NEW.lift_id IS NOT NULL THEN
    NEW.notice_id := public.counted_notice(NEW.result_id, NEW.id,
      coalesce((SELECT l.rev FROM public.critical_lift l WHERE l.id = NEW.lift_id AND l.amendment_id = NEW.id), NEW.version), NEW.version);
  END IF;
  RETURN NEW;
END $$;

-- SECURITY DEFINER: it writes result_revision and critical_lift, which the laboratory's role can only read.
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
  confirmation constant text := NEW.lift_confirmation;
  critical boolean;
  upto int;
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

  -- Written here alone, whatever the caller wrote.
  NEW.lift_id := OLD.lift_id;
  NEW.lift_confirmation := OLD.lift_confirmation;
  NEW.notice_id := OLD.notice_id;

  IF step IN ('pending>entered', 'entered>entered', 'verified>verified', 'verified>released') OR OLD.status = ANY (published) AND OLD.status = NEW.status THEN
    -- A change of the person's data waits, or is waited for.
    IF OLD.status <> NEW.status OR OLD.status = 'entered' THEN
      PERFORM public.lock_person(NEW.patient_id);
    END IF;
    SELECT v.* INTO e FROM public.evaluation_subject(NEW.patient_id, NEW.specimen_id) AS s
     CROSS JOIN LATERAL public.evaluation(NEW.test_code, s.sex, s.born, s.drawn,
       CASE WHEN OLD.status = ANY (published) THEN coalesce(OLD.evaluated_at, OLD.entered_at) END, NEW.value_num, NEW.comparator, NEW.value_text) AS v;
    evaluated_anew := (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag)
      IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag)
      OR NOT OLD.status = ANY (published) AND OLD.no_range IS DISTINCT FROM e.no_range;
    -- Words are evaluated by the test alone, whose critical words of then are not kept: what was released keeps its evaluation.
    IF OLD.status = ANY (published) AND NEW.value_num IS NULL THEN
      evaluated_anew := false;
    END IF;
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
    NEW.evaluated_at := public.evaluation_time(NEW.test_code);

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
    NEW.lift_id := NULL;
    NEW.lift_confirmation := NULL;
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
    IF OLD.lift_id IS NOT NULL THEN
      NEW.lift_confirmation := confirmation;
    END IF;

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
    NEW.evaluated_at := public.evaluation_time(NEW.test_code);
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
    IF NOT public.fits_test(NEW.test_code, NEW.value_num, NEW.value_text, NEW.unit) THEN
      RAISE EXCEPTION 'the value does not fit test %: its kind or its unit', NEW.test_code USING ERRCODE = 'LAB15';
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
    PERFORM public.lock_person(NEW.patient_id);
    SELECT v.* INTO e FROM public.correction_evaluation(NEW.id, amendment.value_num, amendment.comparator, amendment.value_text) AS v;
    IF amendment.kind = 'corrected' AND (amendment.ref_range_id, amendment.ref_low, amendment.ref_high, amendment.crit_low, amendment.crit_high, amendment.flag)
         IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag) THEN
      RAISE EXCEPTION 'the amended value was evaluated with other data; it must be evaluated again first' USING ERRCODE = 'LAB14';
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
    NEW.lift_id := amendment.lift_id;
    NEW.lift_confirmation := amendment.lift_confirmation;
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
      no_range, evaluated_at, outdated_since, outdated_reason, lift_id, lift_confirmation, notice_id,
      entered_by, entered_at, verified_by, verified_at, self_verified, released_by, released_at, amendment_id, superseded_by, reason)
    VALUES (
      OLD.id, OLD.rev, OLD.status, OLD.specimen_id, OLD.value_num, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id,
      OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.delta_flag, OLD.delta_previous,
      OLD.no_range, OLD.evaluated_at, OLD.outdated_since, OLD.outdated_reason, OLD.lift_id, OLD.lift_confirmation, OLD.notice_id,
      OLD.entered_by, OLD.entered_at, OLD.verified_by, OLD.verified_at, OLD.self_verified, OLD.released_by, OLD.released_at, OLD.amendment_id, NEW.changed_by, NEW.change_reason);
    NEW.rev := OLD.rev + 1;
  ELSE
    NEW.rev := OLD.rev;
  END IF;

  critical := public.may_be_critical(NEW.flag, NEW.value_num, NEW.comparator, NEW.crit_low, NEW.crit_high);

  -- A mark that an evaluation takes away although the value is the same is kept beside the result, which must be verified (again).
  IF step IN ('pending>entered', 'entered>entered', 'verified>verified') THEN
    NEW.lift_confirmation := NULL;
    IF critical OR OLD.status = 'pending'
       OR (OLD.value_num, OLD.comparator, OLD.value_text) IS DISTINCT FROM (NEW.value_num, NEW.comparator, NEW.value_text) THEN
      NEW.lift_id := NULL;
    ELSIF public.may_be_critical(OLD.flag, OLD.value_num, OLD.comparator, OLD.crit_low, OLD.crit_high) THEN
      INSERT INTO public.critical_lift (result_id, rev, flag, crit_low, crit_high, lifted_by, reason)
      VALUES (OLD.id, OLD.rev, OLD.flag, OLD.crit_low, OLD.crit_high, NEW.changed_by, NEW.change_reason)
      RETURNING id INTO NEW.lift_id;
    END IF;
    IF NEW.lift_id IS NOT NULL AND NEW.status = 'verified' THEN
      NEW.status := 'entered';
      NEW.verified_by := NULL;
      NEW.verified_at := NULL;
      NEW.self_verified := false;
    END IF;
  END IF;

  -- What counts at this moment is what counted, for good.
  IF publishes OR NEW.status = 'cancelled' THEN
    NEW.notice_id := NULL;
    IF critical OR NEW.lift_id IS NOT NULL THEN
      upto := CASE WHEN NEW.amendment_id IS NULL THEN NEW.rev ELSE amendment.version END;
      NEW.notice_id := public.counted_notice(NEW.id, NEW.amendment_id,
        coalesce((SELECT l.rev FROM public.critical_lift l WHERE l.id = NEW.lift_id AND l.amendment_id IS NOT DISTINCT FROM NEW.amendment_id), upto), upto);
    END IF;
    IF publishes AND NEW.notice_id IS NULL AND critical THEN
      RAISE EXCEPTION 'a critical value needs a recorded notice before it is released' USING ERRCODE = 'LAB09';
    END IF;
    IF publishes AND NEW.notice_id IS NULL AND NEW.lift_id IS NOT NULL AND NEW.lift_confirmation IS NULL THEN
      RAISE EXCEPTION 'the critical mark of this value was lifted: it needs a notice, or a confirmation by the person who verifies'
        USING ERRCODE = 'LAB17';
    END IF;
  END IF;

  NEW.change_reason := NULL; -- it lives in the revision now
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- What is there already ------------------------------------------------------------------------------------------------------

ALTER TABLE critical_notice DISABLE TRIGGER USER;
UPDATE critical_notice c SET amendment_version = 1 WHERE amendment_id IS NOT NULL;
-- A notice did not say of which value it spoke. Of a waiting result it is certain where the value is the only one there has been, or
-- the one before was gone already; of a proposed amendment, where it was evaluated for the last time before.
UPDATE critical_notice c SET value_stated = false
  FROM result r
 WHERE r.id = c.result_id AND r.open AND c.amendment_id IS NULL AND c.rev > 1
   AND NOT coalesce(c.notified_at >= (SELECT v.superseded_at FROM result_revision v WHERE v.result_id = c.result_id AND v.rev = c.rev - 1), false);
-- An early version took notices from before the value was there.
UPDATE critical_notice c SET value_stated = false
  FROM result r
 WHERE r.id = c.result_id AND r.open AND c.amendment_id IS NULL AND c.rev = r.rev AND r.resulted_at IS NULL
   AND c.notified_at < date_trunc('minute', r.entered_at);
UPDATE critical_notice c SET value_stated = false
  FROM result_amendment a
 WHERE a.id = c.amendment_id AND a.status = 'proposed' AND NOT coalesce(c.notified_at >= a.evaluated_at, false);
ALTER TABLE critical_notice ENABLE TRIGGER USER;

ALTER TABLE result DISABLE TRIGGER USER;
ALTER TABLE result_revision DISABLE TRIGGER USER;
ALTER TABLE result_amendment DISABLE TRIGGER USER;
-- What left the laboratory with a notice keeps it, whatever the setting is now: it could not have been released without.
UPDATE result r SET notice_id = n.id
  FROM (SELECT DISTINCT ON (c.result_id, c.rev, c.amendment_id) c.id, c.result_id, c.rev, c.amendment_id
          FROM critical_notice c ORDER BY c.result_id, c.rev, c.amendment_id, c.read_back DESC, c.recorded_at DESC, c.id DESC) AS n
 WHERE n.result_id = r.id AND n.rev = r.rev AND n.amendment_id IS NOT DISTINCT FROM r.amendment_id
   AND NOT r.open AND may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high);
UPDATE result_revision v SET notice_id = n.id
  FROM (SELECT DISTINCT ON (c.result_id, c.rev, c.amendment_id) c.id, c.result_id, c.rev, c.amendment_id
          FROM critical_notice c ORDER BY c.result_id, c.rev, c.amendment_id, c.read_back DESC, c.recorded_at DESC, c.id DESC) AS n
 WHERE n.result_id = v.result_id AND n.rev = v.rev AND n.amendment_id IS NOT DISTINCT FROM v.amendment_id
   AND v.released_at IS NOT NULL AND may_be_critical(v.flag, v.value_num, v.comparator, v.crit_low, v.crit_high);
UPDATE result_amendment a SET notice_id = n.id
  FROM (SELECT DISTINCT ON (c.amendment_id) c.id, c.amendment_id
          FROM critical_notice c ORDER BY c.amendment_id, c.read_back DESC, c.recorded_at DESC, c.id DESC) AS n
 WHERE n.amendment_id = a.id AND a.status <> 'proposed'
   AND may_be_critical(a.flag, a.value_num, a.comparator, a.crit_low, a.crit_high);
-- Waiting values that lost a critical mark to an evaluation: one that is entered again has another time of entry.
WITH lost AS (
  INSERT INTO critical_lift (result_id, rev, flag, crit_low, crit_high, lifted_at, lifted_by, reason)
  SELECT DISTINCT ON (r.id) r.id, v.rev, v.flag, v.crit_low, v.crit_high, v.superseded_at, v.superseded_by, v.reason
    FROM result r JOIN result_revision v ON v.result_id = r.id AND v.entered_at = r.entered_at
     AND (v.value_num, v.comparator, v.value_text) IS NOT DISTINCT FROM (r.value_num, r.comparator, r.value_text)
   WHERE r.status IN ('entered', 'verified') AND NOT may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high)
     AND may_be_critical(v.flag, v.value_num, v.comparator, v.crit_low, v.crit_high)
   ORDER BY r.id, v.rev DESC
  RETURNING id, result_id)
UPDATE result r SET lift_id = lost.id, status = 'entered', verified_by = NULL, verified_at = NULL, self_verified = false, version = r.version + 1
  FROM lost WHERE lost.result_id = r.id;
ALTER TABLE result ENABLE TRIGGER USER;
ALTER TABLE result_revision ENABLE TRIGGER USER;
ALTER TABLE result_amendment ENABLE TRIGGER USER;

-- What was released before the database evaluated, and would be critical by the rules of now, or would not be: the earlier migration looked at
-- people of other or unknown sex alone, and at the flag.
UPDATE result SET outdated_since = now(), outdated_reason = 'evaluated by an earlier version, or before the person''s data were corrected'
 WHERE id IN (
   SELECT r.id FROM result r
    CROSS JOIN LATERAL evaluation_subject(r.patient_id, r.specimen_id) AS s
    CROSS JOIN LATERAL evaluation(r.test_code, s.sex, s.born, s.drawn, coalesce(r.evaluated_at, r.entered_at), r.value_num, r.comparator) AS e
    WHERE r.status IN ('released', 'corrected', 'amended') AND r.value_num IS NOT NULL AND r.outdated_since IS NULL
      AND may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high)
          <> may_be_critical(e.flag, r.value_num, r.comparator, e.crit_low, e.crit_high)
      AND (r.ref_range_id, r.ref_low, r.ref_high, r.crit_low, r.crit_high, r.flag)
          IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag));

-- Imports ----------------------------------------------------------------------------------------------------------------------

-- What the file says, whatever its line ends, quotes and order of columns are. Unknown of files of earlier versions.
ALTER TABLE import_batch ADD COLUMN content_sha256 bytea CHECK (octet_length(content_sha256) = 32);
CREATE UNIQUE INDEX import_batch_content ON import_batch (content_sha256) WHERE NOT dry_run;

-- Order ------------------------------------------------------------------------------------------------------------------------

-- Lists are in the order of the database's time; the ids come from the programs' clocks.
CREATE INDEX patient_registered ON patient (created_at, id) WHERE merged_into IS NULL;
CREATE INDEX lab_order_placed ON lab_order (ordered_at, id);
DROP INDEX lab_order_day;
CREATE INDEX staff_added ON staff (created_at, id);
CREATE INDEX result_amendment_waiting ON result_amendment (entered_at, id) WHERE status = 'proposed';

-- A later migration of the same transaction may change these tables: nothing must be left for its end.
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
