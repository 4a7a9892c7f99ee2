//! One reading of a server: all databases, all roles, who may connect where, in a few questions whatever
//! their number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::Namespace;

use crate::{ProvisionError, server::AdminSession};

pub(super) struct ObservedDatabase {
    pub(super) comment: Option<String>,
    pub(super) is_template: bool,
    /// Whether anybody at all is let in.
    pub(super) connectable: bool,
    /// The most sessions that it may have beside superusers'; -1: any number.
    pub(super) connections_max: i32,
    /// What every role may do, as `CONNECT, TEMPORARY`.
    pub(super) public: Option<String>,
    /// The roles that may connect beside PUBLIC, the owner among them.
    pub(super) connect: Vec<String>,
}

pub(super) struct ObservedRole {
    pub(super) comment: Option<String>,
    pub(super) can_log_in: bool,
    pub(super) superuser: bool,
    /// The most sessions that it may have; -1: any number.
    pub(super) connections_max: i32,
    /// Its own settings, by name, in whatever database they hold: the limits among them.
    pub(super) settings: Vec<String>,
    pub(super) member_of: Vec<String>,
    /// The databases in which it has rights, whether it can connect to them or not.
    pub(super) rights_in: Vec<String>,
    /// Whether anything on the server is its own.
    pub(super) owns: bool,
    /// Whether it has a right on anything.
    pub(super) has_rights: bool,
}

/// How many connections a server takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedCapacity {
    pub(super) max_connections: usize,
    /// What it reserves for superusers and the like.
    pub(super) reserved: usize,
}

pub(super) struct ObservedServer {
    /// The cluster's own identifier: two entries of the registry may name the same server.
    pub(super) identifier: String,
    /// Whether it takes no writes.
    pub(super) read_only: bool,
    pub(super) capacity: ObservedCapacity,
    /// How full the queue of notifications is: 1 is full, and then every transaction that notifies fails.
    pub(super) notification_queue: f64,
    pub(super) databases: BTreeMap<String, ObservedDatabase>,
    pub(super) roles: BTreeMap<String, ObservedRole>,
    /// Whether somebody builds the namespace's template.
    pub(super) template_is_built: bool,
    /// Somebody compares a database that is to be adopted, in a scratch database for which no operation
    /// stands yet.
    pub(super) comparing: bool,
    /// Somebody makes spares just now, and one of them is not finished.
    pub(super) spares_are_made: bool,
    /// The connectable databases that a role was granted.
    granted: HashMap<String, Vec<String>>,
}

impl ObservedServer {
    pub(super) async fn read(session: &AdminSession, namespace: &Namespace) -> Result<Self, ProvisionError> {
        let databases = databases(session).await?;
        let roles = roles(session).await?;
        let row = session
            .client
            .query_one(
                "SELECT system_identifier::text, current_setting('transaction_read_only')::boolean,
                        current_setting('max_connections')::int,
                        current_setting('superuser_reserved_connections')::int
                            + coalesce(current_setting('reserved_connections', true)::int, 0),
                        pg_notification_queue_usage()
                   FROM pg_control_system()",
                &[],
            )
            .await
            .map_err(ProvisionError::db(
                "asking the server about itself",
                &session.target,
            ))?;
        let count = |index| usize::try_from(row.get::<_, i32>(index)).unwrap_or(0);
        let mut granted: HashMap<String, Vec<String>> = HashMap::new();
        for (name, database) in databases.iter().filter(|(_, database)| database.connectable) {
            for role in &database.connect {
                granted.entry(role.clone()).or_default().push(name.clone());
            }
        }
        Ok(Self {
            identifier: row.get(0),
            read_only: row.get(1),
            capacity: ObservedCapacity {
                max_connections: count(2),
                reserved: count(3),
            },
            notification_queue: row.get(4),
            databases,
            roles,
            template_is_built: migrator::template_is_being_built(&*session.client, namespace).await?,
            comparing: migrator::comparing_is_under_way(&*session.client, namespace).await?,
            spares_are_made: migrator::spares_are_being_made(&*session.client, namespace).await?,
            granted,
        })
    }

    /// Whether a role is a member of another, directly.
    pub(super) fn is_member(&self, role: &str, of: &str) -> bool {
        let role = self.roles.get(role);
        role.is_some_and(|role| role.member_of.iter().any(|group| group == of))
    }

    /// The connectable databases that a role may connect to by itself or through what it is a member of;
    /// PUBLIC's rights aside.
    pub(super) fn reach_of(&self, role: &str) -> BTreeSet<&str> {
        let mut known = BTreeSet::from([role]);
        let mut open = vec![role];
        let mut reached = BTreeSet::new();
        while let Some(name) = open.pop() {
            reached.extend(self.granted.get(name).into_iter().flatten().map(String::as_str));
            for group in self.roles.get(name).into_iter().flat_map(|role| &role.member_of) {
                if known.insert(group) {
                    open.push(group);
                }
            }
        }
        reached
    }
}

async fn databases(session: &AdminSession) -> Result<BTreeMap<String, ObservedDatabase>, ProvisionError> {
    let rows = session
        .client
        .query(
            "SELECT d.datname::text, m.description, d.datistemplate, d.datallowconn, d.datconnlimit, a.public, a.connect
               FROM pg_database d
               LEFT JOIN pg_shdescription m ON m.objoid = d.oid AND m.classoid = 'pg_database'::regclass
              CROSS JOIN LATERAL (
                    SELECT string_agg(privilege_type, ', ') FILTER (WHERE grantee = 0) AS public,
                           coalesce(array_agg(pg_get_userbyid(grantee)::text)
                               FILTER (WHERE grantee <> 0 AND privilege_type = 'CONNECT'), '{}') AS connect
                      FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba)))) a",
            &[],
        )
        .await
        .map_err(ProvisionError::db("listing the databases", &session.target))?;
    let observed = rows.iter().map(|row| {
        let database = ObservedDatabase {
            comment: row.get(1),
            is_template: row.get(2),
            connectable: row.get(3),
            connections_max: row.get(4),
            public: row.get(5),
            connect: row.get(6),
        };
        (row.get(0), database)
    });
    Ok(observed.collect())
}

async fn roles(session: &AdminSession) -> Result<BTreeMap<String, ObservedRole>, ProvisionError> {
    let rows = session
        .client
        .query(
            "SELECT r.rolname::text, m.description, r.rolcanlogin, r.rolsuper,
                    ARRAY(SELECT pg_get_userbyid(g.roleid)::text FROM pg_auth_members g WHERE g.member = r.oid),
                    coalesce(s.owns, false), s.owns IS NOT NULL, r.rolconnlimit,
                    ARRAY(SELECT DISTINCT split_part(c, '=', 1) FROM pg_db_role_setting g, unnest(g.setconfig) c WHERE g.setrole = r.oid),
                    ARRAY(SELECT DISTINCT d.datname::text FROM pg_shdepend p JOIN pg_database d ON d.oid = p.dbid
                           WHERE p.refclassid = 'pg_authid'::regclass AND p.refobjid = r.oid AND p.deptype = 'a')
               FROM pg_roles r
               LEFT JOIN pg_shdescription m ON m.objoid = r.oid AND m.classoid = 'pg_authid'::regclass
               LEFT JOIN (SELECT refobjid, bool_or(deptype = 'o') AS owns FROM pg_shdepend
                           WHERE refclassid = 'pg_authid'::regclass AND classid <> 'pg_auth_members'::regclass
                           GROUP BY refobjid) s ON s.refobjid = r.oid",
            &[],
        )
        .await
        .map_err(ProvisionError::db("listing the roles", &session.target))?;
    let observed = rows.iter().map(|row| {
        let role = ObservedRole {
            comment: row.get(1),
            can_log_in: row.get(2),
            superuser: row.get(3),
            member_of: row.get(4),
            owns: row.get(5),
            has_rights: row.get(6),
            connections_max: row.get(7),
            settings: row.get(8),
            rights_in: row.get(9),
        };
        (row.get(0), role)
    });
    Ok(observed.collect())
}
