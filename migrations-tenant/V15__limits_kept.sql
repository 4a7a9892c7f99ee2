-- A critical limit ends only when somebody says so: a range that is closed or replaced leaves nobody without a limit who had one by it,
-- unless the person states why. And a laboratory's time zone has one meaning, whoever writes it.
--
-- SQLSTATE that the guards raise beside those of the earlier migrations
--   LAB18  closing a range would leave people without a critical limit

ALTER TABLE ref_range
  -- Why nobody needs the critical limits of this range any more; given when it is closed.
  ADD COLUMN limits_withdrawn text
    CHECK (limits_withdrawn IS NULL OR char_length(limits_withdrawn) BETWEEN 1 AND 500 AND valid_to IS NOT NULL);

-- For whom nobody would be told any more once a range is closed: the first sex, age and side for which the range has a critical limit
-- and no range in force has one. NULL when there is nobody.
CREATE FUNCTION limits_lost(closed public.ref_range) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH in_force AS (
    SELECT g.sex, g.crit_low, g.crit_high, '2000-01-01'::timestamp + g.age_from::interval AS begins,
           coalesce('2000-01-01'::timestamp + g.age_to::interval, 'infinity') AS ends, g.age_from, g.age_to
      FROM public.ref_range g WHERE g.test_code = closed.test_code AND g.valid_to IS NULL AND g.id <> closed.id
  ), bounds AS (
    SELECT '2000-01-01'::timestamp + closed.age_from::interval AS begins,
           coalesce('2000-01-01'::timestamp + closed.age_to::interval, 'infinity') AS ends
  ), ages AS (
    -- What holds changes only where a range begins or ends.
    SELECT closed.age_from AS age, b.begins AS reached FROM bounds b
    UNION SELECT f.age_from, f.begins FROM in_force f, bounds b WHERE f.begins > b.begins AND f.begins < b.ends
    UNION SELECT f.age_to, f.ends FROM in_force f, bounds b WHERE f.ends > b.begins AND f.ends < b.ends
  )
  SELECT format('%s from the age of %s on would have no critical limit %s',
                CASE of_sex WHEN 'F' THEN 'women' ELSE 'men' END, a.age, CASE side WHEN 'low' THEN 'below' ELSE 'above' END)
    FROM ages a
   CROSS JOIN unnest(CASE WHEN closed.sex IS NULL THEN ARRAY['F', 'M'] ELSE ARRAY[closed.sex] END) AS of_sex
   CROSS JOIN unnest(ARRAY['low', 'high']) AS side
   WHERE CASE side WHEN 'low' THEN closed.crit_low ELSE closed.crit_high END IS NOT NULL
     AND NOT EXISTS (SELECT FROM in_force f WHERE (f.sex IS NULL OR f.sex = of_sex) AND f.begins <= a.reached AND a.reached < f.ends
                        AND CASE side WHEN 'low' THEN f.crit_low ELSE f.crit_high END IS NOT NULL)
   ORDER BY a.reached, of_sex, side LIMIT 1
$$;

-- At the end of the transaction, which may have added what takes its place.
CREATE FUNCTION ref_range_limits_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  lost text;
BEGIN
  IF NEW.limits_withdrawn IS NULL THEN
    lost := limits_lost(NEW);
    IF lost IS NOT NULL THEN
      RAISE EXCEPTION '%', lost USING ERRCODE = 'LAB18';
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ref_range_limits_guard AFTER UPDATE ON ref_range
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ref_range_limits_guard();

-- AT TIME ZONE takes a name such as CET for the abbreviation, which has no summer time, and not for the zone.
CREATE FUNCTION lab_profile_zone_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.tz !~ '/' AND NEW.tz NOT IN ('UTC', 'UCT', 'GMT', 'Zulu')
     AND EXISTS (SELECT FROM pg_timezone_abbrevs a WHERE a.abbrev = upper(NEW.tz)) THEN
    RAISE EXCEPTION 'the time zone % is an abbreviation; name a place, such as Europe/Vienna', NEW.tz USING ERRCODE = 'LAB13';
  END IF;
  RETURN NEW;
END $$;
UPDATE lab_profile SET tz = place FROM (VALUES
  ('CET', 'Europe/Brussels'), ('MET', 'Europe/Brussels'), ('EET', 'Europe/Athens'), ('WET', 'Europe/Lisbon'),
  ('EST', 'America/Panama'), ('MST', 'America/Phoenix'), ('HST', 'Pacific/Honolulu')) AS named (zone, place) WHERE upper(tz) = zone;
CREATE TRIGGER lab_profile_zone_guard BEFORE INSERT OR UPDATE OF tz ON lab_profile
  FOR EACH ROW EXECUTE FUNCTION lab_profile_zone_guard();

-- What is there already: a gap of days between two ranges is closed, by a range that begins where the one before it ends.
DO $$
DECLARE
  later record;
BEGIN
  FOR later IN
    SELECT l.*, min(e.age_to) AS meets FROM ref_range l JOIN ref_range e ON e.test_code = l.test_code AND e.sex IS NOT DISTINCT FROM l.sex
     WHERE e.valid_to IS NULL AND l.valid_to IS NULL AND ages_cross(l.age_from, e.age_to)
       AND '2000-01-01'::timestamp + e.age_from::interval < '2000-01-01'::timestamp + l.age_from::interval
       AND (l.age_to IS NULL OR '2000-01-01'::timestamp + e.age_to::interval < '2000-01-01'::timestamp + l.age_to::interval) GROUP BY l.id
  LOOP
    -- Where another range is in the way, an administrator has to decide; the two stay as they are.
    BEGIN
      UPDATE ref_range SET valid_to = now() WHERE id = later.id;
      INSERT INTO ref_range (id, test_code, sex, age_from, age_to, low, high, crit_low, crit_high)
      VALUES (gen_random_uuid(), later.test_code, later.sex, later.meets, later.age_to, later.low, later.high, later.crit_low, later.crit_high);
    EXCEPTION WHEN SQLSTATE 'LAB16' THEN
      NULL;
    END;
  END LOOP;
END $$;

-- Open work by these rules, with its former evaluation kept.
UPDATE result SET change_reason = 'evaluated again when the laboratory was upgraded'
 WHERE status IN ('entered', 'verified') AND id IN (
   SELECT r.id FROM result r CROSS JOIN LATERAL evaluation_subject(r.patient_id, r.specimen_id) AS s
    CROSS JOIN LATERAL evaluation(r.test_code, s.sex, s.born, s.drawn, NULL, r.value_num, r.comparator, r.value_text) AS e
    WHERE r.status IN ('entered', 'verified') AND (r.ref_range_id, r.ref_low, r.ref_high, r.crit_low, r.crit_high, r.flag, r.no_range)
          IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag, e.no_range));
-- A later migration of the same transaction may change these tables: nothing must be left for its end.
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
