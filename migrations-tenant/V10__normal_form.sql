-- One form for texts that are compared: two that look the same are the same.
--
--   LAB12  a text is not in the form in which it is compared

-- Whether a line is in normal form: NFC, no blank at its ends or doubled, no character that nobody can see. The application
-- writes nothing else (`model::text`, which knows more of Unicode and is the rule); this holds against everybody. The two
-- joiners are spelling in some scripts. In an encoding other than UTF8 there is less to see and less to check.
CREATE FUNCTION is_normal_line(line text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF getdatabaseencoding() <> 'UTF8' THEN
    RETURN line !~ '^ | $|  |[\x01-\x1f\x7f]';
  END IF;
  RETURN line IS NFC NORMALIZED
    AND line !~ ('^ | $|  |[\u0001-\u001f\u007f-\u00a0\u00ad\u1680\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f'
                 || '\u3000\u3164\ufeff\ufff9-\ufffb]');
END $$;

-- Only columns that a statement changes are looked at: what an earlier version stored does not stand in the way of a change to
-- something else.
CREATE FUNCTION refuse_other_forms() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  after  jsonb := to_jsonb(NEW);
  before jsonb := CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD) ELSE '{}' END;
  field  text;
BEGIN
  FOREACH field IN ARRAY TG_ARGV LOOP
    IF after ->> field IS DISTINCT FROM before ->> field AND NOT is_normal_line(after ->> field) THEN
      RAISE EXCEPTION '%.% holds a text that is not in normal form', TG_TABLE_NAME, field USING ERRCODE = 'LAB12';
    END IF;
  END LOOP;
  RETURN NEW;
END $$;

-- What is stored is brought into that form where that is safe. A number that another patient, or another order of the same
-- requester, has in that form already stays as it is: two records of one person are a person's decision, and the audit trail
-- names them (`patient.possible_duplicate`).
CREATE FUNCTION pg_temp.normal_line(line text, length_max int) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  form text := line;
BEGIN
  IF getdatabaseencoding() = 'UTF8' THEN
    form := normalize(form, NFC);
    form := regexp_replace(form, '[\u0009\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+', ' ', 'g');
    form := regexp_replace(form, '^[\u0020\u200b\u2060\ufeff]+|[\u0020\u200b\u2060\ufeff]+$', '', 'g');
  ELSE
    form := btrim(regexp_replace(form, '[\t ]+', ' ', 'g'));
  END IF;
  RETURN CASE WHEN char_length(form) BETWEEN 1 AND length_max THEN form ELSE line END;
END $$;

-- The guards below speak of steps that people take; this is none.
ALTER TABLE lab_profile DISABLE TRIGGER USER;
ALTER TABLE staff DISABLE TRIGGER USER;
ALTER TABLE test_def DISABLE TRIGGER USER;
ALTER TABLE patient DISABLE TRIGGER USER;
ALTER TABLE lab_order DISABLE TRIGGER USER;
ALTER TABLE specimen DISABLE TRIGGER USER;

UPDATE lab_profile SET name = pg_temp.normal_line(name, 200), version = version + 1
 WHERE name <> pg_temp.normal_line(name, 200);

UPDATE staff SET display_name = pg_temp.normal_line(display_name, 200), version = version + 1
 WHERE display_name <> pg_temp.normal_line(display_name, 200);

UPDATE test_def SET name = pg_temp.normal_line(name, 200), section = pg_temp.normal_line(section, 64),
       specimen_type = pg_temp.normal_line(specimen_type, 64), unit = pg_temp.normal_line(unit, 40), version = version + 1
 WHERE (name, section, specimen_type, unit) IS DISTINCT FROM
       (pg_temp.normal_line(name, 200), pg_temp.normal_line(section, 64), pg_temp.normal_line(specimen_type, 64), pg_temp.normal_line(unit, 40));
UPDATE specimen SET specimen_type = pg_temp.normal_line(specimen_type, 64), version = version + 1
 WHERE specimen_type <> pg_temp.normal_line(specimen_type, 64);

UPDATE patient SET family_name = pg_temp.normal_line(family_name, 200), given_name = pg_temp.normal_line(given_name, 200),
       family_key = pg_temp.normal_line(family_key, 1000), given_key = pg_temp.normal_line(given_key, 1000), version = version + 1
 WHERE (family_name, given_name) IS DISTINCT FROM (pg_temp.normal_line(family_name, 200), pg_temp.normal_line(given_name, 200));

CREATE TEMPORARY TABLE same_number ON COMMIT DROP AS
SELECT id, form, first_value(id) OVER held AS first
  FROM (SELECT id, national_id, created_at, pg_temp.normal_line(national_id, 64) AS form
          FROM patient WHERE national_id IS NOT NULL AND merged_into IS NULL) AS numbered
WINDOW held AS (PARTITION BY form ORDER BY national_id = form DESC, created_at, id);
UPDATE patient p SET national_id = s.form, version = p.version + 1
  FROM same_number s WHERE p.id = s.id AND s.id = s.first AND p.national_id <> s.form;
UPDATE patient SET national_id = pg_temp.normal_line(national_id, 64), version = version + 1
 WHERE merged_into IS NOT NULL AND national_id <> pg_temp.normal_line(national_id, 64);
INSERT INTO audit_event (action, entity, entity_id, detail)
SELECT 'patient.possible_duplicate', 'patient', id::text, jsonb_build_object('sameNationalIdAs', first)
  FROM same_number WHERE id <> first;

UPDATE lab_order o SET requester = n.requester, placer_order_no = n.placer_order_no, version = o.version + 1
  FROM (SELECT id, requester, placer_order_no,
               row_number() OVER (PARTITION BY coalesce(requester, ''), placer_order_no ORDER BY changed, ordered_at, id) AS place
          FROM (SELECT id, ordered_at, pg_temp.normal_line(requester, 200) AS requester, pg_temp.normal_line(placer_order_no, 64) AS placer_order_no,
                       (requester, placer_order_no) IS DISTINCT FROM
                       (pg_temp.normal_line(requester, 200), pg_temp.normal_line(placer_order_no, 64)) AS changed
                  FROM lab_order) AS formed) AS n
 WHERE o.id = n.id AND (n.place = 1 OR n.placer_order_no IS NULL)
   AND (o.requester, o.placer_order_no) IS DISTINCT FROM (n.requester, n.placer_order_no);

ALTER TABLE lab_profile ENABLE TRIGGER USER;
ALTER TABLE staff ENABLE TRIGGER USER;
ALTER TABLE test_def ENABLE TRIGGER USER;
ALTER TABLE patient ENABLE TRIGGER USER;
ALTER TABLE lab_order ENABLE TRIGGER USER;
ALTER TABLE specimen ENABLE TRIGGER USER;

CREATE TRIGGER lab_profile_form BEFORE INSERT OR UPDATE OF name ON lab_profile
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('name');
CREATE TRIGGER staff_form BEFORE INSERT OR UPDATE OF display_name ON staff
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('display_name');
CREATE TRIGGER test_def_form BEFORE INSERT OR UPDATE OF name, section, specimen_type, unit ON test_def
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('name', 'section', 'specimen_type', 'unit');
CREATE TRIGGER patient_form BEFORE INSERT OR UPDATE OF national_id, family_name, given_name ON patient
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('national_id', 'family_name', 'given_name');
CREATE TRIGGER lab_order_form BEFORE INSERT OR UPDATE OF requester, placer_order_no ON lab_order
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('requester', 'placer_order_no');
CREATE TRIGGER critical_notice_form BEFORE INSERT ON critical_notice
  FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('notified_to');

-- Numbers of merged records are reserved, too.
CREATE INDEX patient_merged_number ON patient (national_id) WHERE merged_into IS NOT NULL;

-- A national number is one person's, with all records that were merged into theirs. Two at once meet at the lock.
CREATE FUNCTION patient_number_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.national_id IS NULL OR NEW.merged_into IS NOT NULL THEN
    RETURN NEW;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('patient_national_id' || E'\n' || NEW.national_id, 0));
  IF EXISTS (SELECT FROM patient p WHERE p.national_id = NEW.national_id AND p.id <> NEW.id
               AND p.merged_into IS DISTINCT FROM NEW.id) THEN
    RAISE EXCEPTION 'this national number belongs to another patient'
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'patient_national_id';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER patient_number_guard BEFORE INSERT OR UPDATE OF national_id, merged_into ON patient
  FOR EACH ROW EXECUTE FUNCTION patient_number_guard();
