-- Operations that refresh a laboratory's statistics.
ALTER TABLE operations
    DROP CONSTRAINT operations_kind_check,
    ADD CONSTRAINT operations_kind_check
        CHECK (kind IN ('provision', 'adopt', 'migrate', 'backup', 'restore', 'restore_in_place', 'offboard',
                        'verify_archive', 'import_archive', 'analyze'));
ALTER TABLE operation_steps
    DROP CONSTRAINT operation_steps_step_check,
    ADD CONSTRAINT operation_steps_step_check CHECK (step IN (
        'ensure_role', 'ensure_database', 'secure_database', 'ensure_schema', 'seed', 'check', 'activate',
        'record_version', 'fence', 'dump', 'verify', 'grace', 'readmit', 'drop_database', 'drop_role', 'remove_tenant',
        'inspect', 'baseline', 'release', 'restore_database', 'swap_database', 'drop_replaced', 'drop_restored', 'prune',
        'analyze'));
