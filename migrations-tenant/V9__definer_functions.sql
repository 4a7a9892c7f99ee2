-- What runs with its owner's rights (SECURITY DEFINER) finds nothing in `public`: a function that takes the very types of a
-- call is preferred to the server's own, wherever it stands in the search_path. In a database that was adopted its users may
-- create such functions, and the guards' owner may be a superuser. So their path holds only the server's own names and the rest
-- is written with its schema; otherwise the bodies are what they were.

-- SECURITY DEFINER: it writes result_revision, which the laboratory's role can only read.
CREATE OR REPLACE FUNCTION public.result_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  published constant text[] := ARRAY['released', 'corrected', 'amended'];
  -- numeric is compared as text: 5.0 and 5.00 are equal as numbers, yet not the same statement of a laboratory.
  value_changed boolean := (OLD.value_num::text, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id)
    IS DISTINCT FROM (NEW.value_num::text, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id);
  judged_changed boolean := (OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.delta_flag, OLD.delta_previous)
    IS DISTINCT FROM (NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.delta_flag, NEW.delta_previous);
  entry_changed boolean := (OLD.entered_by, OLD.entered_at) IS DISTINCT FROM (NEW.entered_by, NEW.entered_at);
  verification_changed boolean := (OLD.verified_by, OLD.verified_at, OLD.self_verified) IS DISTINCT FROM (NEW.verified_by, NEW.verified_at, NEW.self_verified);
  release_changed boolean := (OLD.released_by, OLD.released_at) IS DISTINCT FROM (NEW.released_by, NEW.released_at);
  amendment_changed boolean := OLD.amendment_id IS DISTINCT FROM NEW.amendment_id;
  step text := OLD.status || '>' || NEW.status;
  supersedes boolean := false;
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
    supersedes := OLD.status = 'entered';
    NEW.entered_at := now();

  ELSIF step IN ('entered>pending', 'verified>pending') THEN
    IF num_nonnulls(NEW.value_num, NEW.comparator, NEW.value_text, NEW.unit, NEW.comment, NEW.instrument, NEW.resulted_at, NEW.import_id,
         NEW.ref_range_id, NEW.ref_low, NEW.ref_high, NEW.crit_low, NEW.crit_high, NEW.flag, NEW.delta_previous,
         NEW.entered_by, NEW.entered_at, NEW.verified_by, NEW.verified_at) > 0 OR NEW.delta_flag OR NEW.self_verified THEN
      RAISE EXCEPTION 'a result that goes back to the bench keeps nothing, no comparator either' USING ERRCODE = 'LAB03';
    END IF;
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

  ELSIF step = 'verified>released' THEN
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR amendment_changed THEN
      RAISE EXCEPTION 'releasing changes no value, range, flag or signature' USING ERRCODE = 'LAB03';
    END IF;
    IF NEW.released_by IS NULL THEN
      RAISE EXCEPTION 'a release names who released' USING ERRCODE = 'LAB11';
    END IF;
    NEW.released_at := now();

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
    -- Taken from the amendment, whatever the caller wrote: what was verified is what is applied. Unit and range stay.
    NEW.value_num := amendment.value_num;
    NEW.comparator := amendment.comparator;
    NEW.value_text := amendment.value_text;
    NEW.comment := amendment.comment;
    NEW.unit := OLD.unit;
    NEW.ref_range_id := OLD.ref_range_id;
    NEW.ref_low := OLD.ref_low;
    NEW.ref_high := OLD.ref_high;
    NEW.crit_low := OLD.crit_low;
    NEW.crit_high := OLD.crit_high;
    NEW.flag := amendment.flag;
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

  ELSIF step = 'pending>pending' THEN
    -- Only the specimen may change: a replacement was collected.
    IF value_changed OR judged_changed OR entry_changed OR verification_changed OR release_changed OR amendment_changed THEN
      RAISE EXCEPTION 'a pending result has no value and no signature' USING ERRCODE = 'LAB03';
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
      entered_by, entered_at, verified_by, verified_at, self_verified, released_by, released_at, amendment_id, superseded_by, reason)
    VALUES (
      OLD.id, OLD.rev, OLD.status, OLD.specimen_id, OLD.value_num, OLD.comparator, OLD.value_text, OLD.unit, OLD.comment, OLD.instrument, OLD.resulted_at, OLD.import_id,
      OLD.ref_range_id, OLD.ref_low, OLD.ref_high, OLD.crit_low, OLD.crit_high, OLD.flag, OLD.delta_flag, OLD.delta_previous,
      OLD.entered_by, OLD.entered_at, OLD.verified_by, OLD.verified_at, OLD.self_verified, OLD.released_by, OLD.released_at, OLD.amendment_id, NEW.changed_by, NEW.change_reason);
    NEW.rev := OLD.rev + 1;
  ELSE
    NEW.rev := OLD.rev;
  END IF;

  IF NEW.status = ANY (published) AND public.may_be_critical(NEW.flag, NEW.value_num, NEW.comparator, NEW.crit_low, NEW.crit_high)
     AND NOT EXISTS (SELECT FROM public.critical_notice c WHERE c.result_id = NEW.id AND c.rev = NEW.rev
                       AND c.amendment_id IS NOT DISTINCT FROM NEW.amendment_id) THEN
    RAISE EXCEPTION 'a critical value needs a recorded notice before it is released' USING ERRCODE = 'LAB09';
  END IF;

  NEW.change_reason := NULL; -- it lives in the revision now
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- SECURITY DEFINER: it writes result_change, which the laboratory's role can only read.
CREATE OR REPLACE FUNCTION public.result_publish() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- The key is the feed's name; advisory locks are per database, so laboratories never wait for each other.
  PERFORM pg_advisory_xact_lock(hashtextextended('result_change'::text, 0::bigint));
  INSERT INTO public.result_change (result_id, rev, status, changed_at) VALUES (NEW.id, NEW.rev, NEW.status, NEW.updated_at);
  RETURN NULL;
END $$;
