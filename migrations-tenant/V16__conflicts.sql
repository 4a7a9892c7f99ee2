-- A row of a file that has another value for a result than the one that is there is a matter for a person: what the row said is kept beside
-- the result, and the result is not released, nor amended to a value that differs, before the value is repeated, replaced by the one that the
-- row has, or confirmed. A value that was released already is shown with it.
--
-- SQLSTATE that the guards raise beside those of the earlier migrations
--   LAB19  a file contradicts the value: it must be repeated or replaced, or confirmed

ALTER TABLE result
  -- Which measurement it waits for or has: raised when it goes back to the bench or gets another specimen. What a file said of an
  -- earlier measurement says nothing of a later one.
  ADD COLUMN attempt int NOT NULL DEFAULT 1,
  -- Why it was released although a file contradicts it.
  ADD COLUMN conflict_confirmation text CHECK (char_length(conflict_confirmation) BETWEEN 1 AND 500);
ALTER TABLE result_revision ADD COLUMN conflict_confirmation text;
ALTER TABLE result_amendment ADD COLUMN conflict_confirmation text CHECK (char_length(conflict_confirmation) BETWEEN 1 AND 500);

-- What rows that were set aside said of a result.
CREATE TABLE import_conflict (
  batch_id    uuid NOT NULL,
  run         int NOT NULL,
  line        int NOT NULL,
  result_id   uuid NOT NULL REFERENCES result (id),
  -- Of which measurement it speaks.
  attempt     int NOT NULL,
  -- Whether the result had a value when the file came.
  had_value   boolean NOT NULL,
  -- As it was read, in the test's unit; none when it cannot be read or has another unit: then it differs from every value but from one that
  -- was typed in later, by somebody who has the file at hand.
  value_num   numeric,
  comparator  text,
  value_text  text,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (batch_id, run, line),
  FOREIGN KEY (batch_id, run, line) REFERENCES import_error (batch_id, run, line),
  CHECK (num_nonnulls(value_num, value_text) <= 1)
);
CREATE INDEX import_conflict_result ON import_conflict (result_id, attempt);
CREATE TRIGGER import_conflict_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON import_conflict
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The rows that contradict a value of a result, be it the present one or a proposed one. Without a value there is nothing to contradict.
CREATE FUNCTION contradictions(of_result uuid, of_num numeric, of_comparator text, of_text text) RETURNS SETOF import_conflict
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT c.* FROM public.import_conflict c JOIN public.result r ON r.id = c.result_id AND r.attempt = c.attempt
    WHERE c.result_id = of_result AND num_nonnulls(of_num, of_text) = 1
      AND CASE num_nonnulls(c.value_num, c.value_text) WHEN 0 THEN c.had_value OR r.import_id IS NOT NULL
               ELSE (c.value_num, c.comparator, c.value_text) IS DISTINCT FROM (of_num, of_comparator, of_text) END;
END $$;

-- Whoever verifies an amendment has seen what contradicts its value. It runs after result_amendment_guard.
CREATE FUNCTION result_amendment_unconfirmed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.status <> 'verified' OR NOT EXISTS (
       SELECT FROM public.contradictions(NEW.result_id, NEW.value_num, NEW.comparator, NEW.value_text)) THEN
    NEW.conflict_confirmation := NULL;
  ELSIF NEW.conflict_confirmation IS NULL THEN
    RAISE EXCEPTION 'a file has another value for this result: amend it to that one, or confirm it' USING ERRCODE = 'LAB19';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER result_amendment_unconfirmed BEFORE INSERT OR UPDATE ON result_amendment
  FOR EACH ROW EXECUTE FUNCTION result_amendment_unconfirmed();

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
  evaluation_changed boolean :=
    (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.no_range, OLD.evaluated_at)
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
  conflict_confirmation constant text := NEW.conflict_confirmation;
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
  NEW.conflict_confirmation := CASE WHEN OLD.status = ANY (published) THEN OLD.conflict_confirmation END;
  NEW.attempt := OLD.attempt;
  IF NEW.status = 'pending' AND (OLD.status <> 'pending' OR OLD.specimen_id <> NEW.specimen_id) THEN
    NEW.attempt := OLD.attempt + 1;
  END IF;

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
    -- The delta may be measured again: the patient's previous value may have been released since.
    IF value_changed OR evaluation_changed OR entry_changed OR release_changed OR amendment_changed THEN
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
    IF value_changed OR delta_changed OR evaluation_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
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
    IF value_changed OR evaluation_changed OR entry_changed OR verification_changed OR amendment_changed THEN
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
    IF EXISTS (SELECT FROM public.contradictions(NEW.id, OLD.value_num, OLD.comparator, OLD.value_text)) THEN
      IF conflict_confirmation IS NULL THEN
        RAISE EXCEPTION 'a file has another value for this result: repeat or replace it, or confirm it' USING ERRCODE = 'LAB19';
      END IF;
      NEW.conflict_confirmation := conflict_confirmation;
    END IF;
    NEW.released_at := now();
    publishes := true;

  ELSIF step IN ('pending>cancelled', 'entered>cancelled', 'verified>cancelled')
        OR (OLD.status = ANY (published) AND NEW.status = 'voided') THEN
    IF value_changed OR delta_changed OR evaluation_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
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
    NEW.conflict_confirmation := amendment.conflict_confirmation;
    IF NEW.conflict_confirmation IS NULL
       AND EXISTS (SELECT FROM public.contradictions(NEW.id, NEW.value_num, NEW.comparator, NEW.value_text)) THEN
      RAISE EXCEPTION 'a file has another value for this result: amend it to that one, or confirm it' USING ERRCODE = 'LAB19';
    END IF;
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
    IF value_changed OR delta_changed OR evaluation_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'a pending result has no value and no signature' USING ERRCODE = 'LAB03';
    END IF;

  ELSIF OLD.status = ANY (published) AND NEW.status = OLD.status AND mark_changed THEN
    -- Only the mark, and only as it is true.
    IF value_changed OR delta_changed OR evaluation_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed
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
      no_range, evaluated_at, outdated_since, outdated_reason, lift_id, lift_confirmation, notice_id, conflict_confirmation,
      entered_by, entered_at, verified_by, verified_at, self_verified, released_by, released_at, amendment_id, superseded_by, reason)
    VALUES (
      OLD.id, OLD.rev, OLD.status, OLD.specimen_id, OLD.value_num, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id,
      OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.delta_flag, OLD.delta_previous,
      OLD.no_range, OLD.evaluated_at, OLD.outdated_since, OLD.outdated_reason, OLD.lift_id, OLD.lift_confirmation, OLD.notice_id, OLD.conflict_confirmation,
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
