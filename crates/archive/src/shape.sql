-- The shape of the connected database, a line per object: what a dump must carry over beside the rows.
-- Run with an empty search_path, so that every name in a definition is qualified. Owners are written as "owner": a restore
-- into a scratch database gives everything to whoever restores. What belongs to an extension is the extension's.
WITH space AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), rel AS (
    SELECT c.oid, c.relkind, c.relowner, c.relacl, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
           c.oid::regclass::text AS name
      FROM pg_class c JOIN space s ON s.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
       AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
), grants AS (
    SELECT 'schema ' || s.nspname AS name, s.nspowner AS owner, a.grantee, a.privilege_type, a.is_grantable
      FROM space s, aclexplode(coalesce(s.nspacl, acldefault('n', s.nspowner))) a
    UNION ALL
    SELECT 'relation ' || r.name, r.relowner, a.grantee, a.privilege_type, a.is_grantable
      FROM rel r, aclexplode(coalesce(r.relacl, acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner))) a
     WHERE r.relkind <> 'c'
    UNION ALL
    SELECT 'column ' || r.name || '.' || t.attname, r.relowner, a.grantee, a.privilege_type, a.is_grantable
      FROM rel r JOIN pg_attribute t ON t.attrelid = r.oid AND t.attnum > 0 AND NOT t.attisdropped, aclexplode(t.attacl) a
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure::text, p.proowner, a.grantee, a.privilege_type, a.is_grantable
      FROM pg_proc p JOIN space s ON s.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
)
SELECT line FROM (
    SELECT 'schema ' || nspname FROM space
    UNION ALL
    SELECT 'extension ' || extname || ' ' || extversion FROM pg_extension
    UNION ALL
    SELECT concat_ws(' ', 'relation', name, relkind, relpersistence, relrowsecurity, relforcerowsecurity, reloptions::text) FROM rel
    UNION ALL
    SELECT concat_ws(' ', 'column', r.name, row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), quote_ident(a.attname),
                     format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
                     'identity' || nullif(a.attidentity::text, ''), 'generated' || nullif(a.attgenerated::text, ''),
                     'default ' || pg_get_expr(d.adbin, d.adrelid),
                     'collate ' || nullif(a.attcollation, 0)::regcollation::text)
      FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE r.relkind <> 'S'
    UNION ALL
    SELECT concat_ws(' ', 'constraint', nullif(c.conrelid, 0)::regclass::text, nullif(c.contypid, 0)::regtype::text,
                     quote_ident(c.conname), pg_get_constraintdef(c.oid), CASE WHEN NOT c.convalidated THEN 'unvalidated' END)
      FROM pg_constraint c JOIN space s ON s.oid = c.connamespace
     WHERE c.conrelid = 0 OR c.conrelid IN (SELECT oid FROM rel)
    UNION ALL
    SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'invalid' END,
                     CASE WHEN i.indisclustered THEN 'clustered' END, CASE WHEN i.indisreplident THEN 'replica identity' END)
      FROM pg_index i WHERE i.indrelid IN (SELECT oid FROM rel)
    UNION ALL
    SELECT concat_ws(' ', 'trigger', tgenabled, pg_get_triggerdef(oid))
      FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM rel)
    UNION ALL
    SELECT 'function ' || pg_get_functiondef(p.oid)
      FROM pg_proc p JOIN space s ON s.oid = p.pronamespace
     WHERE p.prokind IN ('f', 'p', 'w')
       AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
    UNION ALL
    SELECT concat_ws(' ', 'aggregate', p.oid::regprocedure::text, a.aggtransfn, a.aggfinalfn, a.agginitval)
      FROM pg_proc p JOIN space s ON s.oid = p.pronamespace JOIN pg_aggregate a ON a.aggfnoid = p.oid
     WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
    UNION ALL
    SELECT 'view ' || name || ' ' || pg_get_viewdef(oid) FROM rel WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT 'rule ' || pg_get_ruledef(oid) FROM pg_rewrite WHERE rulename <> '_RETURN' AND ev_class IN (SELECT oid FROM rel)
    UNION ALL
    SELECT concat_ws(' ', 'sequence', r.name, q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle)
      FROM pg_sequence q JOIN rel r ON r.oid = q.seqrelid
    UNION ALL
    SELECT concat_ws(' ', 'type', t.oid::regtype::text, t.typtype, CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END,
                     CASE WHEN t.typnotnull THEN 'not null' END, t.typdefault,
                     (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
      FROM pg_type t JOIN space s ON s.oid = t.typnamespace
     WHERE t.typtype IN ('d', 'e', 'r')
       AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
    UNION ALL
    SELECT concat_ws(' ', 'policy', polrelid::regclass::text, quote_ident(polname), polcmd, polpermissive,
                     (SELECT string_agg(CASE WHEN m = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(m)::text END, ',') FROM unnest(polroles) m),
                     pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy WHERE polrelid IN (SELECT oid FROM rel)
    UNION ALL
    SELECT 'statistics ' || pg_get_statisticsobjdef(x.oid) FROM pg_statistic_ext x WHERE x.stxrelid IN (SELECT oid FROM rel)
    UNION ALL
    SELECT concat_ws(' ', 'grant on', name, 'to',
                     CASE WHEN grantee = 0 THEN 'PUBLIC' WHEN grantee = owner THEN 'owner' ELSE pg_get_userbyid(grantee)::text END,
                     privilege_type, CASE WHEN is_grantable THEN 'grantable' END)
      FROM grants
) AS shape (line)
ORDER BY line COLLATE "C"
