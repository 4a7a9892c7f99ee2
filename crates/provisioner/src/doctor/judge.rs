//! What is wrong, decided from one reading of the registry and one of a server. Pure: it asks nobody.

use std::collections::BTreeSet;

use model::{DbName, Namespace, ServerName, TenantState};
use registry::Tenant;

use super::{
    finding::{Finding, FindingKind, Remedy},
    names::{Named, is_current, named},
    observed_server::{ObservedDatabase, ObservedRole, ObservedServer},
    registry_state::{RegistryState, UnderWay},
};
use crate::{RolePolicy, server::ownership_comment};

/// From which fill of a server's queue of notifications on it is told: PostgreSQL itself warns at a half.
const NOTIFICATION_QUEUE_MAX: f64 = 0.1;

/// A server, as far as it can be judged.
pub(super) struct Judge<'a> {
    pub(super) namespace: &'a Namespace,
    /// The registry's own database, wherever it is.
    pub(super) registry_database: &'a str,
    pub(super) registry_state: &'a RegistryState,
    pub(super) under_way: &'a UnderWay,
    /// The name that findings tell.
    pub(super) server: &'a ServerName,
    /// All names under which the registry knows this cluster.
    pub(super) names: &'a BTreeSet<ServerName>,
    pub(super) observed: &'a ObservedServer,
    /// What the laboratories' ownership comments on the server are on, where the registry knows none of these
    /// laboratories.
    pub(super) marked: Option<&'a Vec<migrator::Marked>>,
    pub(super) roles: &'a RolePolicy,
}

impl Judge<'_> {
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found: Vec<_> = self.server().collect();
        for tenant in self
            .registry_state
            .tenants
            .iter()
            .filter(|tenant| self.names.contains(&tenant.server))
        {
            if !self.under_way.changes(tenant.id) {
                self.laboratory(tenant, &mut found);
            }
        }
        for (name, database) in &self.observed.databases {
            found.extend(self.open(name, database));
            found.extend(self.database(name, database));
        }
        for (name, role) in &self.observed.roles {
            found.extend(self.role(name, role));
        }
        if let Some(marked) = self.marked {
            let marks = |finding: &Finding| marked.iter().any(|marked| marked.name == finding.subject);
            found.retain(|finding| {
                !matches!(
                    finding.kind,
                    FindingKind::OrphanDatabase | FindingKind::OrphanRole
                ) || !marks(finding)
            });
            found.push(self.other_registry(marked));
        }
        found
    }

    pub(super) fn finding(
        &self,
        kind: FindingKind,
        subject: &str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(kind, subject, seen, advice).on(self.server)
    }

    /// The server itself: whether it takes writes, and whether it can hold what the routers may take.
    fn server(&self) -> impl Iterator<Item = Finding> {
        let capacity = self.observed.capacity;
        let read_only = self.observed.read_only.then(|| {
            let seen = "it takes no writes (transaction_read_only is on): laboratories on it can be read and \
                        not changed";
            let advice = "after a failover, point the registry's entry of the server at the new primary; \
                          where a provider keeps a full disk from filling further, give it room; else look \
                          for who set default_transaction_read_only";
            self.finding(FindingKind::ServerReadOnly, self.server.as_str(), seen, advice)
        });
        let overbooked =
            self.registry_state
                .budgets
                .admit(self.server, capacity.max_connections, capacity.reserved);
        let overbooked = overbooked.err().map(|overbooked| {
            let advice = "lower router.budget (TENANTRY_ROUTER_BUDGET) of the tenantd that run, or raise \
                          max_connections and restart the server";
            let seen = overbooked.to_string();
            self.finding(FindingKind::ServerOverbooked, self.server.as_str(), seen, advice)
        });
        let queue = self.observed.notification_queue;
        let notifications = (queue > NOTIFICATION_QUEUE_MAX).then(|| {
            let seen = format!(
                "its queue of notifications is {:.0} % full; when it is full, every transaction that \
                 notifies fails, in every database",
                queue * 100.0
            );
            let advice = "a session that listens and stays in a transaction keeps the queue from being \
                          emptied: end the one that `SELECT pid, datname, usename, xact_start FROM \
                          pg_stat_activity WHERE state <> 'idle' ORDER BY xact_start` lists first, with \
                          `SELECT pg_terminate_backend(PID)`";
            self.finding(FindingKind::NotificationQueue, self.server.as_str(), seen, advice)
        });
        read_only.into_iter().chain(overbooked).chain(notifications)
    }

    /// A laboratory's database and role, where nobody is changing them.
    fn laboratory(&self, tenant: &Tenant, found: &mut Vec<Finding>) {
        let must_be_whole = matches!(tenant.status, TenantState::Active | TenantState::Suspended);
        let comment = ownership_comment(tenant);
        let of = |finding: Finding| finding.of(&tenant.slug);
        let (database_name, role_name) = (tenant.db_name.as_str(), tenant.role_name.as_str());

        let mut database = self.observed.databases.get(database_name);
        match database {
            None if must_be_whole => found.push(of(self.missing_database(tenant))),
            Some(other) if other.comment.as_deref() != Some(&comment) => {
                found.push(of(self.not_ours(
                    "database",
                    database_name,
                    other.comment.as_deref(),
                    tenant,
                )));
                database = None;
            }
            _ => {}
        }
        match self.observed.roles.get(role_name) {
            None if must_be_whole => found.push(of(self.missing_role(tenant))),
            None => {}
            Some(other) if other.comment.as_deref() != Some(&comment) => {
                found.push(of(self.not_ours(
                    "role",
                    role_name,
                    other.comment.as_deref(),
                    tenant,
                )));
            }
            Some(role) => {
                found.extend(self.log_in(tenant, database, role).map(of));
                found.extend(self.reach(tenant, role).into_iter().map(of));
                found.extend(self.limits_and_rights(tenant, database, role).into_iter().map(of));
            }
        }
    }

    fn missing_database(&self, tenant: &Tenant) -> Finding {
        let slug = &tenant.slug;
        if let Some(renamed) = self.renamed(tenant) {
            return self.finding(
                FindingKind::MissingDatabase,
                tenant.db_name.as_str(),
                format!(
                    "{slug} is {} and its database is called {renamed}, which has its ownership comment",
                    tenant.status
                ),
                format!(
                    "rename it back: ALTER DATABASE {} RENAME TO {}",
                    model::quote_ident(renamed),
                    tenant.db_name
                ),
            );
        }
        self.finding(
            FindingKind::MissingDatabase,
            tenant.db_name.as_str(),
            format!("{slug} is {} and has no database", tenant.status),
            format!(
                "look whether it was renamed on the server and rename it back; otherwise it comes back from \
                 an archive: `tenantctl archives list --tenant {slug}` shows them. Without any archive its \
                 data are lost: `tenantctl forget {slug} --confirm {slug} --without-archive` removes the \
                 laboratory from the registry"
            ),
        )
    }

    fn missing_role(&self, tenant: &Tenant) -> Finding {
        let finding = self.finding(
            FindingKind::MissingRole,
            tenant.role_name.as_str(),
            format!(
                "{} is {} and has no role to log in with",
                tenant.slug, tenant.status
            ),
            "`tenantctl doctor --fix` makes it again with its stored password",
        );
        finding.fixed_by(Remedy::MakeRole(tenant.id))
    }

    fn not_ours(&self, what: &str, name: &str, comment: Option<&str>, tenant: &Tenant) -> Finding {
        let seen = match comment {
            Some(comment) => format!("it is marked {comment:?} and not as {}'s", tenant.slug),
            None => format!(
                "it has no ownership comment, though {} should own it",
                tenant.slug
            ),
        };
        if let (Some(own), "database") = (self.renamed(tenant), what) {
            let advice = format!(
                "{}'s own database is called {own}, which has its ownership comment: look whose this one is \
                 and rename it, then run ALTER DATABASE {} RENAME TO {}",
                tenant.slug,
                model::quote_ident(own),
                tenant.db_name
            );
            return self.finding(FindingKind::NotOurs, name, seen, advice);
        }
        self.finding(
            FindingKind::NotOurs,
            name,
            seen,
            format!(
                "look whose {what} it is: if it is {}'s after all, say so with COMMENT ON {} {} IS '{}'; \
                 otherwise rename it and bring the right one back from an archive",
                tenant.slug,
                what.to_uppercase(),
                model::quote_ident(name),
                ownership_comment(tenant)
            ),
        )
    }

    fn log_in(
        &self,
        tenant: &Tenant,
        database: Option<&ObservedDatabase>,
        role: &ObservedRole,
    ) -> Option<Finding> {
        let name = tenant.role_name.as_str();
        let slug = &tenant.slug;
        if tenant.status == TenantState::Active {
            let database = database?;
            let why = if !role.can_log_in {
                "its role has no LOGIN"
            } else if !database.connectable {
                "its database lets nobody in"
            } else if database.connections_max == 0 {
                "its database takes no sessions (CONNECTION LIMIT 0)"
            } else if !self.observed.reach_of(name).contains(tenant.db_name.as_str()) && !role.superuser {
                "its role may not CONNECT to its database"
            } else {
                return None;
            };
            let seen = format!("{slug} is active, but {why}");
            let advice = "`tenantctl doctor --fix` lets it in again";
            let finding = self.finding(FindingKind::RoleCannotLogIn, name, seen, advice);
            return Some(finding.fixed_by(Remedy::Align(tenant.id)));
        }
        (TenantState::CLOSED.contains(&tenant.status) && role.can_log_in).then(|| {
            let seen = format!("{slug} is {}, but its role can log in", tenant.status);
            let advice = "`tenantctl doctor --fix` closes it; so does a running tenantd";
            let finding = self.finding(FindingKind::RoleCanLogIn, name, seen, advice);
            finding.fixed_by(Remedy::Align(tenant.id))
        })
    }

    /// A database of ours that everybody may connect to.
    fn open(&self, name: &str, database: &ObservedDatabase) -> Option<Finding> {
        let public = database.public.as_ref().filter(|_| database.connectable)?;
        let tenant = self.known(name);
        // Told as not the laboratory's: whoever owns it may need it open.
        if tenant.is_some_and(|tenant| database.comment.as_deref() != Some(&ownership_comment(tenant))) {
            return None;
        }
        let ours =
            tenant.is_some() || name == self.registry_database || named(self.namespace, name).is_some();
        if !ours || tenant.is_some_and(|tenant| self.under_way.changes(tenant.id)) {
            return None;
        }
        let finding = self.finding(
            FindingKind::OpenToPublic,
            name,
            format!("every role may {public} in it"),
            format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", model::quote_ident(name)),
        );
        let finding = match tenant {
            Some(tenant) => finding.of(&tenant.slug),
            None => finding,
        };
        // Somebody's own database that only begins with our prefix, or a laboratory's that the registry does
        // not know, may be in use through PUBLIC: a person decides.
        let is_a_strangers = tenant.is_none()
            && matches!(
                named(self.namespace, name),
                Some(Named::Other | Named::Laboratory | Named::Exchanged(_))
            );
        Some(match DbName::from_catalog(name) {
            Ok(database) if !is_a_strangers => finding.fixed_by(Remedy::CloseToPublic(database)),
            _ => finding,
        })
    }

    /// The laboratory of this cluster that has the database.
    pub(super) fn known(&self, name: &str) -> Option<&Tenant> {
        let tenant = self.registry_state.by_database(name)?;
        self.names.contains(&tenant.server).then_some(tenant)
    }

    /// A database in our namespace that nobody has any more.
    fn database(&self, name: &str, database: &ObservedDatabase) -> Option<Finding> {
        if self.known(name).is_some() || name == self.registry_database || self.under_way.explains_name(name)
        {
            return None;
        }
        let db_name = DbName::from_catalog(name).ok()?;
        // One that was adopted keeps a name of its own; the role of this namespace that has the same
        // ownership comment says whose it is.
        let Some(named) = named(self.namespace, name) else {
            return self.is_forgotten(database).then(|| self.orphan(name, database));
        };
        match named {
            // Told as the laboratory's missing one.
            Named::Laboratory | Named::Other if self.is_renamed(database) => None,
            Named::Laboratory | Named::Other => Some(self.orphan(name, database)),
            Named::Exchanged(operation) => {
                (!self.under_way.has(operation)).then(|| self.orphan(name, database))
            }
            Named::Making(tenant) => (!self.under_way.concerns(tenant)).then(|| {
                let seen = format!("a clone for the laboratory {tenant}, and no operation makes it");
                let advice =
                    "`tenantctl doctor --fix` drops it when nobody has begun to be a laboratory in it";
                let finding = self.finding(FindingKind::MakingLeft, name, seen, advice);
                finding.fixed_by(Remedy::DropEmptyClone(db_name))
            }),
            Named::Scratch(_) if self.observed.comparing => None,
            Named::Scratch(operation) => (!self.under_way.has(operation)).then(|| {
                let seen =
                    format!("a copy in which the operation {operation} verified a dump, and it has ended");
                let advice = "`tenantctl doctor --fix` drops it; what it is a copy of stays";
                let finding = self.finding(FindingKind::ScratchLeft, name, seen, advice);
                finding.fixed_by(Remedy::DropScratch(db_name))
            }),
            Named::Template(build)
                if build.is_current() && (database.connectable || !database.is_template) =>
            {
                let seen =
                    "laboratories are cloned from it, but it is not sealed: somebody may have changed it";
                let advice = "`tenantctl doctor --fix` drops it; the next laboratory has it built anew";
                let finding = self.finding(FindingKind::StaleTemplate, name, seen, advice);
                Some(finding.fixed_by(Remedy::DropTemplate(db_name)))
            }
            Named::Template(build) => build.is_stale().then(|| {
                let seen = format!("laboratories are cloned from version {} now", migrator::latest());
                let advice =
                    "`tenantctl doctor --fix` drops it; an older binary that needs it builds it again";
                let finding = self.finding(FindingKind::StaleTemplate, name, seen, advice);
                finding.fixed_by(Remedy::DropTemplate(db_name))
            }),
            Named::TemplateBuilding => (!self.observed.template_is_built).then(|| {
                let seen = "a template that was begun and that nobody builds";
                let advice =
                    "`tenantctl doctor --fix` drops it; so does the next one who builds the template";
                let finding = self.finding(FindingKind::StaleTemplate, name, seen, advice);
                finding.fixed_by(Remedy::DropTemplate(db_name))
            }),
            Named::Spare(of) => {
                let seen = if of == "making" {
                    if self.observed.spares_are_made {
                        return None;
                    }
                    "it was to be kept ready, and whoever made it was killed"
                } else if is_current(&of) && database.connectable {
                    "it was kept ready, but it is not sealed: somebody may have changed it"
                } else if is_current(&of) || self.has_template(&of) {
                    return None;
                } else {
                    "it was kept ready from a template that is not there any more, or is past"
                };
                let advice =
                    "`tenantctl doctor --fix` drops it when nobody has begun to be a laboratory in it";
                let finding = self.finding(FindingKind::StaleSpare, name, seen, advice);
                Some(finding.fixed_by(Remedy::DropEmptyClone(db_name)))
            }
        }
    }

    /// Whether it was a laboratory's of this namespace that the registry does not know.
    fn is_forgotten(&self, database: &ObservedDatabase) -> bool {
        let Some(comment) = database
            .comment
            .as_deref()
            .filter(|comment| comment.starts_with(migrator::OWNERSHIP_COMMENT))
        else {
            return false;
        };
        let known = comment[migrator::OWNERSHIP_COMMENT.len()..]
            .parse()
            .is_ok_and(|id| self.registry_state.by_id(id).is_some() || self.under_way.concerns(id));
        let prefix = format!("{}_tenant_", self.namespace.as_str());
        let has_role = self
            .observed
            .roles
            .iter()
            .any(|(name, role)| name.starts_with(&prefix) && role.comment.as_deref() == Some(comment));
        !known && has_role
    }

    /// Whether a template that some binary may clone has this fingerprint.
    fn has_template(&self, fingerprint: &str) -> bool {
        self.observed.databases.keys().any(|name| {
            let named = named(self.namespace, name);
            matches!(named, Some(Named::Template(build)) if build.fingerprint == fingerprint && !build.is_stale())
        })
    }

    /// Never dropped by us, and no advice is to drop it: it may hold the last copy of a laboratory's data.
    fn orphan(&self, name: &str, database: &ObservedDatabase) -> Finding {
        let marked = database
            .comment
            .as_deref()
            .and_then(|comment| comment.strip_prefix(migrator::OWNERSHIP_COMMENT));
        let (seen, advice) = match (&database.comment, marked) {
            (Some(_), Some(id)) => (
                format!("it is marked as the laboratory {id}, which the registry does not know"),
                format!(
                    "`tenantctl adopt --database {name} --slug {} --invite` takes it back under that id, as \
                     after the registry was restored from an older backup, and invites an administrator \
                     whose password was in the registry alone; is it the right registry (MASTER_PGDATABASE)?",
                    self.slug_of(name)
                ),
            ),
            (comment, _) => (
                match comment {
                    Some(comment) => {
                        format!("no laboratory in the registry has it; it is marked {comment:?}")
                    }
                    None => {
                        "no laboratory in the registry has it, and it has no ownership comment".to_owned()
                    }
                },
                format!(
                    "look what is in it, and keep a copy (`pg_dump --format=custom --dbname={name}`) before \
                     you change it; a laboratory is taken over by `tenantctl adopt --database {name} --slug \
                     {}`",
                    self.slug_of(name)
                ),
            ),
        };
        self.finding(FindingKind::OrphanDatabase, name, seen, advice)
    }

    /// The slug that a laboratory's database was named by.
    fn slug_of(&self, name: &str) -> String {
        let prefix = format!("{}_tenant_", self.namespace.as_str());
        let slug = name.strip_prefix(&prefix);
        slug.filter(|slug| model::Slug::parse(slug).is_ok())
            .unwrap_or("…")
            .to_owned()
    }
}
