-- What a database holds beside the shape, the sequences and the rows, as lines of four columns: what the line is for, then
-- three texts. Run with an empty search_path. What belongs to an extension is the extension's.
--   object        a definition that a dump carries over, and whose copy must have it
--   left_out      kind, name, why: what no dump carries over
--   owner         role, object as ALTER takes it, 'definer' for a function that runs with its owner's rights
--   role          a role without which the dump cannot be restored
--   grantee       a role that has a right on something
--   tablespace    one in which something lies
--   derived       a table whose rows a restore works out anew or does not carry over
WITH me AS (
    SELECT d.oid, d.datname, d.datconnlimit FROM pg_database d WHERE d.datname = current_database()
), space AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), rel AS (
    SELECT c.oid, c.relkind, c.relispopulated, c.reltablespace, c.oid::regclass::text AS name
      FROM pg_class c JOIN space s ON s.oid = c.relnamespace
), thing (classid, objid, detail) AS (
    SELECT 'pg_publication'::regclass, oid,
           concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot) FROM pg_publication
    UNION ALL SELECT 'pg_publication_rel'::regclass, oid, '' FROM pg_publication_rel
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid, concat_ws(' ', evtevent, evtenabled, evtfoid::regprocedure, evttags::text)
      FROM pg_event_trigger
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, '' FROM pg_foreign_data_wrapper
    -- Options may hold passwords, so only their names are written down.
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid,
           (SELECT string_agg(split_part(o, '=', 1), ',' ORDER BY o) FROM unnest(srvoptions) o) FROM pg_foreign_server
    UNION ALL SELECT 'pg_user_mapping'::regclass, umid,
           (SELECT string_agg(split_part(o, '=', 1), ',' ORDER BY o) FROM unnest(umoptions) o) FROM pg_user_mappings
    UNION ALL SELECT 'pg_cast'::regclass, oid, concat_ws(' ', nullif(castfunc, 0)::regprocedure, castcontext, castmethod) FROM pg_cast
    UNION ALL SELECT 'pg_collation'::regclass, oid,
           concat_ws(' ', collprovider, collisdeterministic, collcollate, collctype,
                     coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'), to_jsonb(c) ->> 'collicurules')
      FROM pg_collation c
    UNION ALL SELECT 'pg_conversion'::regclass, oid, '' FROM pg_conversion
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, '' FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictinitoption FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, '' FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, '' FROM pg_ts_template
    UNION ALL SELECT 'pg_operator'::regclass, oid, oprcode::regprocedure::text FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, '' FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, '' FROM pg_opfamily
    UNION ALL SELECT 'pg_transform'::regclass, oid, '' FROM pg_transform
    UNION ALL SELECT 'pg_am'::regclass, oid, '' FROM pg_am
    UNION ALL SELECT 'pg_language'::regclass, oid, '' FROM pg_language
), grants (what, owner, grantee, privilege_type, is_grantable) AS (
    -- Where somebody was given a right, what its owner has by default is written down as well; that is no right to compare.
    SELECT g.what, g.owner, a.grantee, a.privilege_type, a.is_grantable
      FROM (SELECT 'large object ' || oid, lomowner, lomacl, acldefault('L', lomowner) FROM pg_largeobject_metadata
            UNION ALL
            SELECT i.type || ' ' || i.identity, t.typowner, t.typacl, acldefault('T', t.typowner)
              FROM pg_type t, pg_identify_object('pg_type'::regclass, t.oid, 0) i WHERE t.oid >= 16384 AND t.typacl IS NOT NULL
            UNION ALL
            SELECT i.identity, d.defaclrole, d.defaclacl,
                   CASE d.defaclnamespace WHEN 0
                        THEN acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END::"char", d.defaclrole) END
              FROM pg_default_acl d, pg_identify_object('pg_default_acl'::regclass, d.oid, 0) i) g (what, owner, acl, usual),
           LATERAL (SELECT * FROM aclexplode(g.acl) EXCEPT SELECT * FROM aclexplode(g.usual)) a
)
SELECT 'object', concat_ws(' ', i.type, i.identity, nullif(t.detail, '')), '', ''
  FROM thing t, pg_identify_object(t.classid, t.objid, 0) i
 WHERE t.objid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = t.classid AND m.objid = t.objid)
UNION ALL
SELECT 'object', 'extension ' || extname, '', '' FROM pg_extension
UNION ALL
SELECT 'object', 'materialized view ' || name || CASE WHEN relispopulated THEN ' with data' ELSE ' with no data' END, '', ''
  FROM rel WHERE relkind = 'm'
UNION ALL
SELECT 'object', concat_ws(' ', 'grant on', what, 'to',
               CASE WHEN grantee = 0 THEN 'PUBLIC' WHEN grantee = owner THEN 'owner' ELSE pg_get_userbyid(grantee)::text END,
               privilege_type, CASE WHEN is_grantable THEN 'grantable' END), '', ''
  FROM grants
UNION ALL
SELECT 'object', concat_ws(' ', 'comment on', i.type, i.identity, left(encode(sha256(convert_to(c.description, 'UTF8')), 'hex'), 16)), '', ''
  FROM pg_description c, pg_identify_object(c.classoid, c.objoid, c.objsubid) i
 WHERE c.objoid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = c.classoid AND m.objid = c.objoid)
UNION ALL
SELECT 'object', concat_ws(' ', 'security label on', i.type, i.identity, l.provider, l.label), '', ''
  FROM pg_seclabel l, pg_identify_object(l.classoid, l.objoid, l.objsubid) i WHERE l.objoid >= 16384
UNION ALL
SELECT 'left_out', 'subscription', s.subname::text, 'a copy would replicate as well; create it again after a restore'
  FROM pg_subscription s, me WHERE s.subdbid = me.oid
UNION ALL
SELECT 'left_out', 'replication slot', r.slot_name::text, 'it belongs to this database on this server' FROM pg_replication_slots r, me
 WHERE r.database = me.datname AND NOT r.temporary
UNION ALL
SELECT 'left_out', 'prepared transaction', x.gid, 'it is not committed' FROM pg_prepared_xacts x, me WHERE x.database = me.datname
UNION ALL
SELECT 'left_out', 'materialized view', name, 'a restore works its rows out anew' FROM rel WHERE relkind = 'm' AND relispopulated
UNION ALL
SELECT 'left_out', 'foreign table', r.name, 'its rows lie on the server ' || s.srvname FROM rel r
  JOIN pg_foreign_table f ON f.ftrelid = r.oid JOIN pg_foreign_server s ON s.oid = f.ftserver
UNION ALL
SELECT 'left_out', 'table of an extension', r.name, 'the extension does not mark its rows as data to be dumped' FROM rel r
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'e'
       AND d.refclassid = 'pg_extension'::regclass
  JOIN pg_extension e ON e.oid = d.refobjid
 WHERE r.relkind = 'r' AND r.oid <> ALL (coalesce(e.extconfig, '{}'))
UNION ALL
SELECT 'left_out', 'extension version', e.extname || ' ' || e.extversion, 'a restore takes the version that its server makes by default'
  FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname WHERE a.default_version <> e.extversion
UNION ALL
SELECT 'left_out', 'database setting', concat_ws(' ', split_part(c, '=', 1), 'of ' || nullif(s.setrole, 0)::regrole::text),
       'it is the server''s; a restore in place keeps it'
  FROM me JOIN pg_db_role_setting s ON s.setdatabase = me.oid, unnest(s.setconfig) c WHERE c NOT LIKE 'tenantry.%'
UNION ALL
SELECT 'owner', r.rolname::text,
       CASE i.type WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'statistics object' THEN 'STATISTICS'
                   ELSE upper(i.type) END || ' ' || i.identity,
       CASE WHEN d.classid = 'pg_proc'::regclass AND (SELECT p.prosecdef FROM pg_proc p WHERE p.oid = d.objid) THEN 'definer' ELSE '' END
  FROM me JOIN pg_shdepend d ON d.dbid = me.oid AND d.deptype = 'o' AND d.refclassid = 'pg_authid'::regclass
  JOIN pg_roles r ON r.oid = d.refobjid AND r.rolname <> current_user, pg_identify_object(d.classid, d.objid, 0) i
 WHERE d.objsubid = 0
   AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_extension'::regclass, 'pg_subscription'::regclass)
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = d.classid AND m.objid = d.objid)
   -- A sequence of a column goes with its table, a multirange with its range.
   AND NOT EXISTS (SELECT FROM pg_depend o WHERE d.classid = 'pg_class'::regclass AND o.classid = d.classid AND o.objid = d.objid
                       AND o.refclassid = 'pg_class'::regclass AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i'))
   AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typtype = 'm')
   AND NOT EXISTS (SELECT FROM pg_class t WHERE d.classid = 'pg_class'::regclass AND t.oid = d.objid
                       AND (t.relpersistence = 't' OR t.relkind = 't'))
UNION ALL
SELECT DISTINCT 'role', r.rolname::text, 'policy', '' FROM pg_policy p, unnest(p.polroles) m JOIN pg_roles r ON r.oid = m
UNION ALL
SELECT DISTINCT 'role', u.usename::text, 'user mapping', '' FROM pg_user_mappings u WHERE u.umuser <> 0
UNION ALL
SELECT DISTINCT 'grantee', r.rolname::text, '', ''
  FROM me JOIN pg_shdepend d ON d.dbid = me.oid AND d.deptype = 'a' AND d.refclassid = 'pg_authid'::regclass
  JOIN pg_roles r ON r.oid = d.refobjid
UNION ALL
SELECT DISTINCT 'tablespace', t.spcname::text, '', ''
  FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid >= 16384 AND t.spcname !~ '^pg_'
UNION ALL
SELECT 'derived', name, '', '' FROM rel WHERE relkind = 'm'
UNION ALL
SELECT 'derived', r.name, '', '' FROM rel r
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'e'
       AND d.refclassid = 'pg_extension'::regclass
  JOIN pg_extension e ON e.oid = d.refobjid
 WHERE r.relkind = 'r' AND r.oid <> ALL (coalesce(e.extconfig, '{}'))
ORDER BY 1, 2, 3, 4
