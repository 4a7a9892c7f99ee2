//! What is wrong with the rights and settings of laboratories' roles and databases: one table of checks.
//!
//! A check is one question to the catalogue, for all laboratories of a server at once or inside one
//! laboratory's database. Each row that it answers with is one finding, together with the statements that
//! take it back. Whether the doctor runs these itself or a person has to decide is the row's last column:
//! taken back are rights and settings that no laboratory needs and that one statement gives again; what names
//! a role of somebody else is left to a person.

use futures_util::future::try_join_all;
use model::{DbName, Namespace, RoleName, ServerName, Slug, TenantId};
use pg::ConnectTarget;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::finding::{Finding, FindingKind, Remedy};
use crate::{ProvisionError, RolePolicy, server::AdminSession};

/// One question. Its SQL begins after [`LABORATORIES`] and gives: the laboratory's role, the subject, what
/// was seen, the statements that take it back, and whether the doctor may run them.
struct Check {
    kind: FindingKind,
    sql: &'static str,
}

/// A laboratory as checks know it.
#[derive(Debug, Clone)]
pub(super) struct Laboratory {
    pub(super) id: TenantId,
    pub(super) slug: Slug,
    pub(super) role: RoleName,
    pub(super) group: RoleName,
    pub(super) database: DbName,
    pub(super) server: ServerName,
    /// Roles of its own people and programs may have rights in its database: it was adopted, or restored from
    /// an archive that names others. Which of them are meant is for the laboratory to say and not for the
    /// doctor.
    pub(super) has_people: bool,
}

/// What a check saw of one laboratory.
pub(super) struct Sighting {
    kind: FindingKind,
    pub(super) role: String,
    subject: String,
    seen: String,
    /// What takes it back.
    statements: Vec<String>,
    fixable: bool,
    /// Where the statements are run; anywhere on the server when absent.
    database: Option<DbName>,
}

/// Settings that change what statements mean or whether they work, with a pattern of the values that change
/// nothing. A role can set most of them for itself, a database's owner for the database.
const SETTINGS: [(&str, &str); 15] = [
    ("array_nulls", "^on$"),
    ("client_encoding", "^utf-?8$"),
    ("default_transaction_deferrable", "^off$"),
    ("default_transaction_isolation", "^read committed$"),
    ("default_transaction_read_only", "^(off|false|no|0)$"),
    ("lo_compat_privileges", "^off$"),
    ("local_preload_libraries", "^$"),
    ("plpgsql.variable_conflict", "^error$"),
    ("role", "^none$"),
    ("row_security", "^(on|true|yes|1)$"),
    (
        "search_path",
        r#"^("?\$user"?, *)?("?pg_catalog"?, *)?"?public"?( *,.*)?$"#,
    ),
    ("session_preload_libraries", "^$"),
    ("session_replication_role", "^origin$"),
    ("standard_conforming_strings", "^(on|true|yes|1)$"),
    ("transform_null_equals", "^off$"),
];

/// The laboratories that are asked about, as far as their roles and databases have their ownership comments;
/// and the settings of [`SETTINGS`].
const LABORATORIES: &str = "
WITH harmful AS (SELECT * FROM unnest($6::text[], $7::text[]) AS h (name, harmless)),
labs AS (
    SELECT l.*, r.oid AS role_oid
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[]) AS l (role, own_group, database, comment, has_people)
      JOIN pg_roles r ON r.rolname = l.role AND shobj_description(r.oid, 'pg_authid') = l.comment
), own AS (
    SELECT l.*, r.oid, r.rolname FROM labs l JOIN pg_roles r ON r.rolname IN (l.role, l.own_group)
       AND shobj_description(r.oid, 'pg_authid') = l.comment
), databases AS (
    SELECT l.*, d.oid, d.datname, d.datdba, d.datacl FROM labs l JOIN pg_database d ON d.datname = l.database
       AND shobj_description(d.oid, 'pg_database') = l.comment
), installation AS (
    SELECT oid FROM pg_roles WHERE starts_with(shobj_description(oid, 'pg_authid'), 'tenantry laboratory ')
)";

/// What a look at the server's shared catalogue shows.
const ON_SERVER: [Check; 12] = [
    Check {
        kind: FindingKind::RoleAttributes,
        sql: "
SELECT o.role, o.rolname::text,
       format('it has %s, with which it is kept out of nothing, or can let itself in', string_agg(a.word, ', ')),
       ARRAY[format('ALTER ROLE %I %s', o.rolname, string_agg('NO' || a.word, ' '))], true
  FROM own o JOIN pg_roles r ON r.oid = o.oid
 CROSS JOIN LATERAL (VALUES (r.rolsuper, 'SUPERUSER'), (r.rolcreaterole, 'CREATEROLE'), (r.rolcreatedb, 'CREATEDB'),
            (r.rolbypassrls, 'BYPASSRLS'), (r.rolreplication, 'REPLICATION'),
            (r.rolcanlogin AND r.rolname = o.own_group, 'LOGIN')) AS a (has, word)
 WHERE a.has GROUP BY o.role, o.rolname",
    },
    Check {
        kind: FindingKind::RoleAttributes,
        sql: "
SELECT o.role, o.rolname::text,
       format('its password %s at %s (VALID UNTIL)', CASE WHEN r.rolvaliduntil <= now() THEN 'expired' ELSE 'expires' END,
              to_char(r.rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SSZ')),
       ARRAY[format('ALTER ROLE %I VALID UNTIL ''infinity''', o.rolname)], true
  FROM own o JOIN pg_roles r ON r.oid = o.oid WHERE o.rolname = o.role AND r.rolvaliduntil < 'infinity'",
    },
    Check {
        kind: FindingKind::RoleAttributes,
        sql: "
SELECT o.role, o.rolname::text, 'it has NOINHERIT, with which it has none of its group''s rights',
       ARRAY[format('ALTER ROLE %I INHERIT', o.rolname)], true
  FROM own o JOIN pg_roles r ON r.oid = o.oid WHERE o.rolname = o.role AND NOT r.rolinherit",
    },
    Check {
        kind: FindingKind::RoleMembership,
        sql: "
SELECT DISTINCT o.role, format('%s in %s (ADMIN OPTION)', o.rolname, g.rolname),
       format('%I has the ADMIN OPTION on %I, and may let any other role into it', o.rolname, g.rolname),
       ARRAY[format('REVOKE ADMIN OPTION FOR %I FROM %I', g.rolname, o.rolname)
             || CASE WHEN current_setting('server_version_num')::int >= 160000
                THEN format(' GRANTED BY %I', pg_get_userbyid(m.grantor)) ELSE '' END], true
  FROM own o JOIN pg_auth_members m ON m.member = o.oid JOIN pg_roles g ON g.oid = m.roleid
 WHERE o.rolname = o.role AND g.rolname = o.own_group AND m.admin_option",
    },
    Check {
        kind: FindingKind::RoleMembership,
        sql: "
SELECT DISTINCT o.role, format('%s in %s', o.rolname, g.rolname),
       format('%I is a member of %I, and may do whatever that role may', o.rolname, g.rolname),
       ARRAY[format('REVOKE %I FROM %I', g.rolname, o.rolname) || CASE WHEN current_setting('server_version_num')::int >= 160000
           THEN format(' GRANTED BY %I', pg_get_userbyid(m.grantor)) ELSE '' END],
       starts_with(g.rolname::text, 'pg_') OR g.oid IN (TABLE installation)
  FROM own o JOIN pg_auth_members m ON m.member = o.oid JOIN pg_roles g ON g.oid = m.roleid
 WHERE NOT (o.rolname = o.role AND g.rolname = o.own_group) AND g.rolname <> $8",
    },
    Check {
        kind: FindingKind::RoleMembership,
        sql: "
SELECT DISTINCT o.role, format('%s in %s', m.rolname, o.rolname),
       format('%I is a member of %I, and may do whatever the laboratory''s role may', m.rolname, o.rolname),
       ARRAY[format('REVOKE %I FROM %I', o.rolname, m.rolname) || CASE WHEN current_setting('server_version_num')::int >= 160000
           THEN format(' GRANTED BY %I', pg_get_userbyid(a.grantor)) ELSE '' END],
       m.oid IN (TABLE installation)
  FROM own o JOIN pg_auth_members a ON a.roleid = o.oid JOIN pg_roles m ON m.oid = a.member
 WHERE NOT (o.rolname = o.own_group AND m.oid = o.role_oid) AND NOT m.rolsuper AND m.rolname <> current_user
   AND m.oid NOT IN (SELECT oid FROM own WHERE own.role <> o.role)",
    },
    Check {
        kind: FindingKind::RightsOfOthers,
        sql: "
SELECT d.role, format('%s in %s', r.rolname, d.datname), format('%I may %s', r.rolname, x.rights),
       ARRAY[format('REVOKE ALL ON DATABASE %I FROM %I', d.datname, r.rolname)], false
  FROM databases d CROSS JOIN LATERAL (
         SELECT a.grantee, string_agg(a.privilege_type, ', ') AS rights FROM aclexplode(d.datacl) a
          WHERE a.grantee <> 0 AND a.grantee <> d.datdba GROUP BY a.grantee) x
  JOIN pg_roles r ON r.oid = x.grantee
 WHERE NOT d.has_people AND NOT r.rolsuper AND r.oid NOT IN (TABLE installation) AND r.rolname <> current_user
UNION ALL
SELECT d.role, format('%s in %s', r.rolname, d.datname), format('%I owns the database', r.rolname),
       -- The rights of an owner go over to the next one, the laboratory's own to connect among them.
       ARRAY[format('ALTER DATABASE %I OWNER TO %I', d.datname, current_user)]
       || CASE WHEN r.oid = d.role_oid THEN ARRAY[format('GRANT CONNECT ON DATABASE %I TO %I', d.datname, r.rolname)]
          ELSE '{}' END, false
  FROM databases d JOIN pg_roles r ON r.oid = d.datdba
 WHERE NOT d.has_people AND NOT r.rolsuper AND r.rolname <> current_user",
    },
    Check {
        kind: FindingKind::RoleSettings,
        sql: "
SELECT o.role, o.role, format('%s (ALTER ROLE … SET), which changes what its statements mean or whether they work',
              string_agg(h.name || ' = ' || substr(c, length(h.name) + 2), ', ')),
       array_agg(format('ALTER ROLE %I %sRESET %s', o.rolname, 'IN DATABASE ' || quote_ident(d.datname) || ' ', h.name)), true
  FROM own o JOIN pg_db_role_setting s ON s.setrole = o.oid LEFT JOIN pg_database d ON d.oid = s.setdatabase
 CROSS JOIN LATERAL unnest(s.setconfig) c JOIN harmful h ON h.name = lower(split_part(c, '=', 1))
 WHERE substr(c, length(h.name) + 2) !~* h.harmless GROUP BY o.role",
    },
    // No limit of PostgreSQL's is for one role here, so all that can be done is to see it in time.
    Check {
        kind: FindingKind::LocksHeld,
        sql: "
SELECT d.role, d.datname::text,
       format('its sessions hold %s advisory locks; all sessions of the server together have room for some %s locks, and without room every \
               statement fails', k.held, k.room),
       ARRAY[format('SELECT pid, usename, count(*), pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE \
                     locktype = ''advisory'' AND database = %s GROUP BY pid, usename HAVING count(*) > 100', d.oid)], false
  FROM databases d JOIN (
         SELECT database, count(*) AS held, current_setting('max_locks_per_transaction')::int
                * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS room
           FROM pg_locks WHERE locktype = 'advisory' GROUP BY database) k ON k.database = d.oid AND k.held > k.room / 10",
    },
    // 0 is a log-in that is refused, and told as such. An adopted laboratory may have had a limit before.
    Check {
        kind: FindingKind::DatabaseSettings,
        sql: "
SELECT d.role, format('%s (CONNECTION LIMIT)', d.datname),
       format('it takes %s sessions, fewer than roles.connections_max = %s', p.datconnlimit, $9::int),
       ARRAY[format('ALTER DATABASE %I CONNECTION LIMIT -1', d.datname)], true
  FROM databases d JOIN pg_database p ON p.oid = d.oid
 WHERE p.datconnlimit > 0 AND p.datconnlimit < $9::int AND NOT d.has_people",
    },
    Check {
        kind: FindingKind::DatabaseSettings,
        sql: "
SELECT d.role, format('%s (IS_TEMPLATE)', d.datname), 'it is a template, which every role with CREATEDB may copy',
       ARRAY[format('ALTER DATABASE %I IS_TEMPLATE false', d.datname)], true
  FROM databases d JOIN pg_database p ON p.oid = d.oid WHERE p.datistemplate",
    },
    Check {
        kind: FindingKind::DatabaseSettings,
        sql: "
SELECT d.role, d.datname::text, format('%s (ALTER DATABASE … SET), which changes what statements in it mean or whether they work',
              string_agg(h.name || ' = ' || substr(c, length(h.name) + 2), ', ')),
       array_agg(format('ALTER DATABASE %I RESET %s', d.datname, h.name)), false
  FROM databases d JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
 CROSS JOIN LATERAL unnest(s.setconfig) c JOIN harmful h ON h.name = lower(split_part(c, '=', 1))
 WHERE substr(c, length(h.name) + 2) !~* h.harmless GROUP BY d.role, d.datname",
    },
];

/// What a look into one laboratory's database shows; $1 to $3 are its role, its group and whether it has
/// people of its own, $4 is the group that earlier versions shared, of which [`FindingKind::RightsUnsettled`]
/// tells.
const INSIDE: [Check; 2] = [
    // Of a laboratory that was adopted, tables of its people may be meant to be so.
    Check {
        kind: FindingKind::DatabaseSettings,
        sql: "
SELECT $1, format('%s in %s', c.oid::regclass, current_database()), found.seen, found.statements, true
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
       SELECT 'row security is on, which hides its rows from the laboratory',
              ARRAY[format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', c.oid::regclass)] WHERE c.relrowsecurity
       UNION ALL
       SELECT format('triggers are off, and with them what guards its rows: %s',
                     array_to_string((array_agg(t.tgname ORDER BY t.tgisinternal, t.tgname))[1:5], ', ')),
              array_agg(format('ALTER TABLE %s ENABLE TRIGGER %I', c.oid::regclass, t.tgname) ORDER BY t.tgname)
         FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('D', 'R') HAVING count(*) > 0) AS found (seen, statements)
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT $3",
    },
    Check {
        kind: FindingKind::RightsOfOthers,
        sql: "
WITH space AS (
    SELECT n.* FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), things AS (
    SELECT 'SCHEMA' AS word, format('%I', n.nspname) AS name, n.nspowner AS owner, '' AS part,
           coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl, 'pg_namespace'::regclass AS class, n.oid AS object FROM space n
    UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), c.relowner, '',
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)), 'pg_class'::regclass, c.oid
      FROM pg_class c JOIN space n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'TABLE', format('%I.%I', n.nspname, c.relname), c.relowner, format(' (%I)', a.attname), a.attacl,
           'pg_class'::regclass, c.oid
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN space n ON n.oid = c.relnamespace
     WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, '', coalesce(p.proacl, acldefault('f', p.proowner)),
           'pg_proc'::regclass, p.oid FROM pg_proc p JOIN space n ON n.oid = p.pronamespace
), given AS (
    SELECT t.class, t.object, a.grantee, t.word || ' ' || t.name AS thing, string_agg(a.privilege_type || t.part, ', ') AS rights,
           format('REVOKE %s ON %s %s FROM ', string_agg(a.privilege_type || t.part, ', '), t.word, t.name) AS revoke
      FROM things t CROSS JOIN LATERAL aclexplode(t.acl) a
     WHERE a.grantee <> t.owner
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = t.class AND e.objid = t.object AND e.deptype = 'e')
       -- Of a laboratory with people of its own, only what is everybody's and should be the laboratory's alone.
       AND (NOT $3 OR a.grantee = 0 AND t.word IN ('SCHEMA', 'TABLE', 'SEQUENCE')
            AND EXISTS (SELECT FROM aclexplode(t.acl) g WHERE g.grantee = to_regrole(quote_ident($2))))
     GROUP BY t.class, t.object, a.grantee, t.word, t.name
    UNION ALL
    -- What a role gives on each thing that it makes. What PostgreSQL gives everybody by itself is no such right.
    SELECT 'pg_default_acl'::regclass, d.oid, a.grantee, 'future ' || k.word || ' of ' || pg_get_userbyid(d.defaclrole),
           string_agg(a.privilege_type, ', '),
           format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %sREVOKE %s ON %s FROM ', pg_get_userbyid(d.defaclrole),
                  'IN SCHEMA ' || quote_ident(n.nspname) || ' ', string_agg(a.privilege_type, ', '), k.word)
      FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
      JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'ROUTINES'), ('n', 'SCHEMAS')) AS k (kind, word)
        ON k.kind = d.defaclobjtype::text
     CROSS JOIN LATERAL aclexplode(d.defaclacl) a
     WHERE NOT $3 AND a.grantee <> d.defaclrole AND NOT (a.grantee = 0 AND d.defaclobjtype = 'f' AND d.defaclnamespace = 0)
     GROUP BY d.oid, d.defaclrole, a.grantee, k.word, n.nspname
)
SELECT $1, format('%s in %s', coalesce(r.rolname, 'PUBLIC'), current_database()),
       format('%s may %s', coalesce(quote_ident(r.rolname), 'every role that gets in'),
              array_to_string((array_agg(g.rights || ' on ' || g.thing ORDER BY g.thing))[1:5], '; '))
           || CASE WHEN count(*) > 5 THEN format('; and more on %s others', count(*) - 5) ELSE '' END,
       array_agg(g.revoke || coalesce(quote_ident(r.rolname), 'PUBLIC') ORDER BY g.thing), g.grantee = 0 AND NOT $3
  FROM given g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE g.grantee = 0 OR NOT (r.rolsuper OR r.rolname IN ($1, $2, $4, current_user, 'pg_database_owner')
       OR starts_with(coalesce(shobj_description(r.oid, 'pg_authid'), ''), 'tenantry laboratory '))
 GROUP BY g.grantee, r.rolname",
    },
];

/// How many statements an advice shows; the next look shows the rest.
const STATEMENTS_SHOWN_MAX: usize = 20;

impl Laboratory {
    /// The laboratory's database as the catalogue has to show it to be looked at.
    fn comment(&self) -> String {
        format!("{}{}", migrator::OWNERSHIP_COMMENT, self.id)
    }
}

/// Asks a server about these laboratories: one question for each check, all sent at once.
pub(super) async fn on_server(
    session: &AdminSession,
    namespace: &Namespace,
    policy: &RolePolicy,
    laboratories: &[Laboratory],
) -> Result<Vec<Sighting>, ProvisionError> {
    if laboratories.is_empty() {
        return Ok(Vec::new());
    }
    let texts = |of: fn(&Laboratory) -> String| laboratories.iter().map(of).collect::<Vec<_>>();
    let roles = texts(|l| l.role.as_str().to_owned());
    let groups = texts(|l| l.group.as_str().to_owned());
    let databases = texts(|l| l.database.as_str().to_owned());
    let comments = texts(Laboratory::comment);
    let people: Vec<bool> = laboratories.iter().map(|l| l.has_people).collect();
    let (names, harmless): (Vec<&str>, Vec<&str>) = SETTINGS.into_iter().unzip();
    let shared = namespace.shared_group();
    let connections_max = i32::try_from(policy.connections_max).unwrap_or(i32::MAX);
    let params: [(&(dyn ToSql + Sync), Type); 9] = [
        (&roles, Type::TEXT_ARRAY),
        (&groups, Type::TEXT_ARRAY),
        (&databases, Type::TEXT_ARRAY),
        (&comments, Type::TEXT_ARRAY),
        (&people, Type::BOOL_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&harmless, Type::TEXT_ARRAY),
        (&shared.as_str(), Type::TEXT),
        (&connections_max, Type::INT4),
    ];
    let asked = ON_SERVER.iter().map(|check| async {
        let sql = format!("{LABORATORIES}{}", check.sql);
        let rows = session.client.query_typed(&sql, &params).await;
        rows.map(|rows| sightings(check.kind, &rows))
    });
    let answers = try_join_all(asked).await;
    let answers = answers.map_err(ProvisionError::db(
        "looking at the laboratories' roles and databases",
        &session.target,
    ))?;
    Ok(answers.into_iter().flatten().collect())
}

/// Looks into the database of one laboratory, in a session whose `search_path` is empty.
pub(super) async fn inside(
    client: &Client,
    target: &ConnectTarget,
    namespace: &Namespace,
    laboratory: &Laboratory,
) -> Result<Vec<Sighting>, ProvisionError> {
    let shared = namespace.shared_group();
    let params: [(&(dyn ToSql + Sync), Type); 4] = [
        (&laboratory.role.as_str(), Type::TEXT),
        (&laboratory.group.as_str(), Type::TEXT),
        (&laboratory.has_people, Type::BOOL),
        (&shared.as_str(), Type::TEXT),
    ];
    let mut seen = Vec::new();
    for check in &INSIDE {
        let rows = client.query_typed(check.sql, &params).await;
        let rows = rows.map_err(ProvisionError::db("looking at rights in the database", target))?;
        let found = sightings(check.kind, &rows).into_iter();
        seen.extend(found.map(|sighting| Sighting {
            database: Some(laboratory.database.clone()),
            ..sighting
        }));
    }
    Ok(seen)
}

fn sightings(kind: FindingKind, rows: &[Row]) -> Vec<Sighting> {
    let read = rows.iter().map(|row| Sighting {
        kind,
        role: row.get(0),
        subject: row.get(1),
        seen: row.get(2),
        statements: row.get(3),
        fixable: row.get(4),
        database: None,
    });
    read.collect()
}

impl Sighting {
    /// The finding that it becomes.
    pub(super) fn into_finding(self, laboratory: &Laboratory) -> Finding {
        let mut shown = self.statements.clone();
        shown.truncate(STATEMENTS_SHOWN_MAX);
        let shown = shown.join("; ");
        let place = match &self.database {
            Some(database) => format!("connected to {}", database.as_str()),
            None => "on the server".to_owned(),
        };
        let advice = if self.fixable {
            format!("`tenantctl doctor --fix` takes it back: `{shown}`, {place}")
        } else {
            format!("look who did it and why; run `{shown}` {place} as a superuser to take it back")
        };
        let finding = Finding::new(self.kind, self.subject, self.seen, advice);
        let finding = finding.on(&laboratory.server).of(&laboratory.slug);
        if !self.fixable {
            return finding;
        }
        finding.fixed_by(Remedy::Run {
            database: self.database,
            statements: self.statements,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_setting_is_judged_once() {
        let names: BTreeSet<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert!(SETTINGS.is_sorted());
    }
}
