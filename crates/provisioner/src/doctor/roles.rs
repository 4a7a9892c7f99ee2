//! What is wrong with roles: what they reach, what limits they have, whose they are. Pure, as [`Judge`] is.
//! Attributes, memberships and settings are [`super::checks`]'.

use model::{DbName, RoleName, TenantState};
use registry::Tenant;

use super::{
    finding::{Finding, FindingKind, Remedy},
    judge::Judge,
    observed_server::{ObservedDatabase, ObservedRole},
};
use crate::server::ownership_comment;

impl Judge<'_> {
    pub(super) fn other_registry(&self, marked: &[migrator::Marked]) -> Finding {
        let names: Vec<&str> = marked.iter().map(|marked| marked.name.as_str()).take(5).collect();
        self.finding(
            FindingKind::OtherRegistry,
            self.registry_database,
            format!(
                "{} databases and roles in the namespace {} are marked as laboratories', such as {}, and the \
                 registry {} has never known any of them",
                marked.len(),
                self.namespace.as_str(),
                names.join(", "),
                self.registry_database
            ),
            "look whether MASTER_PGDATABASE and MASTER_PGHOST name the right registry. If the registry was \
             lost, take each back: `tenantctl adopt --database NAME --slug SLUG --invite` with the slug that \
             it had. Drop nothing: the databases may be all that there is of these laboratories",
        )
    }

    /// What a role has of its own: limits, and rights through its group.
    pub(super) fn limits_and_rights(
        &self,
        tenant: &Tenant,
        database: Option<&ObservedDatabase>,
        role: &ObservedRole,
    ) -> Vec<Finding> {
        let name = tenant.role_name.as_str();
        let mut found = Vec::new();
        let wanted = i32::try_from(self.roles.connections_max).unwrap_or(i32::MAX);
        let limited = role.settings.iter().any(|setting| setting == "temp_file_limit");
        if role.connections_max < wanted || !limited {
            let seen = match (role.connections_max, limited) {
                (-1, _) => "it may have any number of sessions".to_owned(),
                (_, false) => "its temporary files have no limit".to_owned(),
                (max, _) => {
                    format!("it may have {max} sessions, fewer than roles.connections_max = {wanted}")
                }
            };
            let advice = "`tenantctl doctor --fix` sets what is configured";
            let finding = self.finding(FindingKind::RoleUnbounded, name, seen, advice);
            found.push(finding.fixed_by(Remedy::Align(tenant.id)));
        }
        let whole = matches!(tenant.status, TenantState::Active | TenantState::Suspended);
        if database.is_none() || !whole || role.superuser {
            return found;
        }
        let group = self.namespace.tenant_group(tenant.id);
        let shared = self.namespace.shared_group();
        let is_in = |group: &str| role.member_of.iter().any(|name| name == group);
        let observed_group = self.observed.roles.get(group.as_str());
        let given = observed_group
            .is_some_and(|group| group.rights_in.iter().any(|name| name == tenant.db_name.as_str()));
        let why = if is_in(shared.as_str()) {
            format!(
                "it has its rights through {}, which earlier versions shared among all laboratories: whoever \
                 is let into another's database by mistake can work there",
                shared.as_str()
            )
        } else if !is_in(group.as_str()) || !given {
            format!(
                "it has no rights in its database through its own group {}",
                group.as_str()
            )
        } else {
            return found;
        };
        let advice =
            "`tenantctl doctor --fix` gives it a group of its own; so does `tenantctl migrate --all`";
        let finding = self.finding(FindingKind::RightsUnsettled, name, why, advice);
        found.push(finding.fixed_by(Remedy::Settle(tenant.id)));
        found
    }

    /// Where a database is that was renamed by hand: its ownership comment says whose it is.
    pub(super) fn renamed(&self, tenant: &Tenant) -> Option<&str> {
        let comment = ownership_comment(tenant);
        let mut marked = self.observed.databases.iter();
        let found = marked.find(|(name, database)| {
            name.as_str() != tenant.db_name.as_str() && database.comment.as_deref() == Some(&comment)
        });
        found.map(|(name, _)| name.as_str())
    }

    pub(super) fn reach(&self, tenant: &Tenant, role: &ObservedRole) -> Vec<Finding> {
        let name = tenant.role_name.as_str();
        // A database with its ownership comment is its own under whatever name, as one that was renamed by
        // hand.
        let comment = ownership_comment(tenant);
        let is_own = |database: &str| {
            let observed = self.observed.databases.get(database);
            database == tenant.db_name.as_str()
                || observed.is_some_and(|observed| observed.comment.as_deref() == Some(&comment))
        };
        // What is reached through a role of somebody else's is told of the membership.
        let (group, shared) = (
            self.namespace.tenant_group(tenant.id),
            self.namespace.shared_group(),
        );
        let own = [&tenant.role_name, &group, &shared];
        let elsewhere = self.observed.reach_of(name).into_iter();
        let elsewhere = elsewhere.filter(|database| !is_own(database));
        let found = elsewhere.flat_map(|database| {
            let holds = |role: &&&RoleName| {
                let connect = &self.observed.databases[database].connect;
                connect.iter().any(|name| name == role.as_str())
                    && (**role == &tenant.role_name || self.observed.is_member(name, role.as_str()))
            };
            own.iter()
                .filter(holds)
                .map(|holder| self.reaches(tenant, holder, database))
                .collect::<Vec<_>>()
        });
        let mut found: Vec<Finding> = found.collect();
        let of_group = self.observed.roles.get(group.as_str());
        let roles = [Some((name, role)), of_group.map(|seen| (group.as_str(), seen))];
        for (holder, seen) in roles.into_iter().flatten() {
            for database in seen.rights_in.iter().filter(|database| !is_own(database)) {
                // Copies that an operation makes hold what the laboratory's own database does.
                let Some(other) = self.known(database) else {
                    continue;
                };
                if self.under_way.changes(other.id) {
                    continue;
                }
                let finding = self.finding(
                    FindingKind::RoleReachesElsewhere,
                    &format!("{holder} inside {database}"),
                    format!(
                        "{holder} of {} has rights inside the database of {}",
                        tenant.slug, other.slug
                    ),
                    "`tenantctl doctor --fix` takes them",
                );
                found.push(finding.fixed_by(Remedy::Settle(other.id)));
            }
        }
        found
    }

    fn reaches(&self, tenant: &Tenant, holder: &RoleName, database: &str) -> Finding {
        let finding = self.finding(
            FindingKind::RoleReachesElsewhere,
            &format!("{} in {database}", holder.as_str()),
            format!(
                "the role of {} may connect to the database {database}",
                tenant.slug
            ),
            format!(
                "REVOKE ALL ON DATABASE {} FROM {holder}",
                model::quote_ident(database)
            ),
        );
        match DbName::from_catalog(database) {
            Ok(database) => finding.fixed_by(Remedy::TakeConnect {
                role: holder.clone(),
                database,
            }),
            Err(_) => finding,
        }
    }

    /// Whether the database is a laboratory's of this server under another name.
    pub(super) fn is_renamed(&self, database: &ObservedDatabase) -> bool {
        let id = database
            .comment
            .as_deref()
            .and_then(|comment| comment.strip_prefix(migrator::OWNERSHIP_COMMENT));
        let tenant = id.and_then(|id| self.registry_state.by_id(id.parse().ok()?));
        tenant.is_some_and(|tenant| {
            let named = self.observed.databases.get(tenant.db_name.as_str());
            self.names.contains(&tenant.server) && named.is_none_or(|named| named.comment != database.comment)
        })
    }

    /// A role in our namespace that no laboratory has.
    pub(super) fn role(&self, name: &str, role: &ObservedRole) -> Option<Finding> {
        let prefix = format!("{}_tenant_", self.namespace.as_str());
        let groups = self.namespace.tenant_group_prefix();
        let spares = format!("{}_spare_", self.namespace.as_str());
        if name.starts_with(&spares) {
            return self.spare_group(name, role);
        }
        let of_group = name
            .strip_prefix(&groups)
            .and_then(|id| uuid::Uuid::try_parse(id).ok());
        let known = match of_group {
            Some(id) => self.registry_state.by_id(id.into()).is_some() || self.under_way.concerns(id.into()),
            None => self
                .names
                .iter()
                .any(|server| self.registry_state.by_role(server, name).is_some()),
        };
        if !(name.starts_with(&prefix) || name.starts_with(&groups)) || known {
            return None;
        }
        let marked = role
            .comment
            .as_deref()
            .and_then(|comment| comment.strip_prefix(migrator::OWNERSHIP_COMMENT));
        let marked = marked.and_then(|id| id.parse().ok());
        if marked.is_some_and(|id| self.under_way.concerns(id)) {
            return None;
        }
        let seen = match &role.comment {
            Some(comment) => format!("no laboratory in the registry has it; it is marked {comment:?}"),
            None => "no laboratory in the registry has it, and it has no ownership comment".to_owned(),
        };
        let forgotten = marked.is_some_and(|id| self.registry_state.by_id(id).is_none());
        let quoted = model::quote_ident(name);
        if forgotten && !role.owns && !role.has_rights {
            let advice = "`tenantctl doctor --fix` drops it: it owns nothing and has no rights";
            let finding = self.finding(FindingKind::OrphanRole, name, seen, advice);
            return Some(match RoleName::from_catalog(name) {
                Ok(role) => finding.fixed_by(Remedy::DropRole(role)),
                Err(_) => finding,
            });
        }
        let why = if role.owns {
            "it owns something: look at it first"
        } else if role.has_rights {
            "it has rights on something, such as a database that was left too: see to that first"
        } else {
            "nothing says that it was a laboratory's which is gone: look at it first"
        };
        let advice = format!("{why}, then DROP ROLE {quoted} by hand");
        Some(self.finding(FindingKind::OrphanRole, name, seen, advice))
    }

    /// The group role of a spare that is not there: the worker that made it was killed.
    fn spare_group(&self, name: &str, role: &ObservedRole) -> Option<Finding> {
        if self.observed.databases.contains_key(name)
            || self.observed.spares_are_made
            || role.owns
            || role.has_rights
        {
            return None;
        }
        let seen = "the group role of a database that was to be kept ready and is not there";
        let advice = "`tenantctl doctor --fix` drops it: it owns nothing and has no rights";
        let finding = self.finding(FindingKind::OrphanRole, name, seen, advice);
        Some(match RoleName::from_catalog(name) {
            Ok(role) => finding.fixed_by(Remedy::DropRole(role)),
            Err(_) => finding,
        })
    }
}
