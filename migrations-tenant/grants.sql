-- The whole truth of what a laboratory's own role may do. {group} is the laboratory's group role, whose only member is that role.
-- Applied after every migration run, so it begins by taking everything back. The template gets the first part alone: no role
-- has a right in it.
--
-- No DELETE on anything the laboratory records, no TRUNCATE anywhere, no DDL; append-only tables INSERT and SELECT only;
-- what guards write (revisions, the change feed) SELECT only. UPDATE names its columns: keys and numbers are not among them.

REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
-- What fills the server's disk without a table that anybody looks after: large objects, and messages in the write-ahead log.
-- The functions that PostgreSQL keeps from PUBLIC by itself (lo_import, lo_export, files, slots) are not repeated.
REVOKE EXECUTE ON FUNCTION pg_catalog.lo_create(oid), pg_catalog.lo_creat(integer), pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text), pg_catalog.pg_logical_emit_message(boolean, text, bytea) FROM PUBLIC;

-- ---- the laboratory's group role ----
REVOKE ALL ON SCHEMA public FROM {group};
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {group};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {group};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM {group};
GRANT USAGE ON SCHEMA public TO {group};

-- The laboratory and its people. There is room for one profile, which is written when the laboratory is made.
GRANT SELECT, INSERT (tenant_id, name, tz), UPDATE (name, tz, acc_prefix, allow_self_verify, accept_notice_without_read_back) ON lab_profile TO {group};
GRANT SELECT, INSERT, UPDATE (display_name, email, role, password_hash, oidc_sub, active, session_epoch) ON staff TO {group};
-- Not a record of the laboratory: links that can still be used. What they came to stands in the audit.
GRANT SELECT, INSERT, DELETE, UPDATE (token_sha256, session_epoch, created_by, created_at, expires_at) ON staff_invitation TO {group};

-- The catalogue.
GRANT SELECT, INSERT, UPDATE (name, loinc, section, value_type, unit, decimals, allowed_values, critical_values, members, delta_pct, delta_days, tat_minutes, active) ON test_def TO {group};
GRANT SELECT, INSERT, UPDATE (valid_to, limits_withdrawn) ON ref_range TO {group};

-- The work. What the guards evaluate (range, limits, flag) has no column here.
GRANT SELECT, INSERT, UPDATE (national_id, family_name, given_name, family_key, given_key, sex, birth_date, merged_into, merge_reason) ON patient TO {group};
GRANT USAGE ON SEQUENCE patient_mrn_seq TO {group};
GRANT SELECT, INSERT, UPDATE (last) ON accession_counter TO {group};
GRANT SELECT, INSERT, UPDATE (status, priority, clinical_note, cancel_reason) ON lab_order TO {group};
GRANT SELECT, INSERT, UPDATE (status, collected_at, collected_by, received_at, received_by, reject_reason, rejected_by, change_reason, changed_by) ON specimen TO {group};
GRANT SELECT, INSERT, UPDATE (
  specimen_id, status, value_num, comparator, value_text, unit, comment, instrument, resulted_at, import_id,
  delta_flag, delta_previous, entered_by, entered_at, verified_by, verified_at, self_verified, released_by, amendment_id,
  outdated_since, outdated_reason, lift_confirmation, conflict_confirmation, change_reason, closed_reason, changed_by
) ON result TO {group};
GRANT SELECT, INSERT, UPDATE (status, verified_by, evaluated_at, change_reason, lift_confirmation, conflict_confirmation) ON result_amendment TO {group};

-- Append-only.
GRANT SELECT, INSERT ON audit_event, critical_notice, import_batch, import_run, import_error, import_conflict TO {group};
-- Read by queries, and by guards that run with the rights of whoever writes.
GRANT EXECUTE ON FUNCTION
  lab_day(timestamptz),
  flag_at(numeric, text, numeric, numeric, numeric, numeric),
  flag_of(numeric, text, numeric, numeric, numeric, numeric),
  evaluation_subject(uuid, uuid),
  evaluation(text, text, date, date, timestamptz, numeric, text, text),
  correction_evaluation(uuid, numeric, text, text),
  would_be_critical(uuid),
  contradictions(uuid, numeric, text, text),
  is_critical_word(text, text),
  plain_words(text),
  ages_cross(text, text),
  drawn_on_another_day(text, text),
  mark_outdated(uuid[], text),
  may_be_critical(text, numeric, text, numeric, numeric),
  counted_notice(uuid, uuid, int, int),
  fits_test(text, numeric, text, text),
  limits_lost(ref_range)
  TO {group};
-- Asked by the trigger that keeps texts in one form.
GRANT EXECUTE ON FUNCTION is_normal_line(text) TO {group};
-- Written by guards.
GRANT SELECT ON result_revision, result_change, specimen_revision, critical_lift TO {group};

-- Not a record of the laboratory: answers kept for a day so that a repeated request is not done twice.
GRANT SELECT, INSERT, DELETE ON idempotency_key TO {group};

-- Which version the database has. The table is the migrator's and exists from its first run on.
DO $$
BEGIN
  IF to_regclass('public.refinery_schema_history') IS NOT NULL THEN
    EXECUTE $grant$GRANT SELECT ON refinery_schema_history TO {group}$grant$;
  END IF;
END $$;
