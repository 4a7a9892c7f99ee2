//! What the doctor can find, and how it says so.

use model::{DbName, OperationId, RoleName, SchemaVersion, ServerName, Slug, TenantId};
use serde::Serialize;

/// One kind of thing that is not as it should be. The words are stable: programs may tell kinds apart by
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A server cannot be asked, so nothing is known of what is on it; or it has no connection left for
    /// laboratories' roles.
    ServerUnreachable,
    /// The client programs of this process cannot dump or restore a server's databases.
    ClientPrograms,
    /// The administrator of a server cannot do what operations need.
    AdministratorRights,
    /// New archives cannot be written.
    ArchiveStore,
    /// A server takes no writes.
    ServerReadOnly,
    /// The registry takes no writes.
    RegistryReadOnly,
    /// The budgets of all running routers together exceed what a server can hold.
    ServerOverbooked,
    /// A stored password cannot be opened with this installation's key, or there is none.
    UndecryptableSecret,
    /// A laboratory's database is not there.
    MissingDatabase,
    /// A laboratory's role is not there.
    MissingRole,
    /// Something has the right name and somebody else's ownership comment, or none.
    NotOurs,
    /// The role of a laboratory that does not serve can log in.
    RoleCanLogIn,
    /// The role of a laboratory that serves cannot log in to its database.
    RoleCannotLogIn,
    /// A laboratory's role may connect to a database that is not its own, or has rights in one.
    RoleReachesElsewhere,
    /// A laboratory's role has its rights through a group that it shares with others, or has others than the
    /// grants give.
    RightsUnsettled,
    /// A laboratory's role has no limit on sessions or temporary files, or one that is lower than configured.
    RoleUnbounded,
    /// A laboratory's role has settings of its own that change what its statements mean.
    RoleSettings,
    /// A laboratory's role, or its group, has an attribute such as CREATEROLE or NOINHERIT, or its password
    /// expires.
    RoleAttributes,
    /// A laboratory's role or group is a member of another role, or another role of it.
    RoleMembership,
    /// Roles of others have rights on a laboratory's database or in it.
    RightsOfOthers,
    /// A laboratory's database has settings that change what statements in it mean, is a template, or takes
    /// too few sessions.
    DatabaseSettings,
    /// A line of `pg_hba.conf` lets laboratories' roles in without a password.
    LogInWithoutPassword,
    /// The sessions of a laboratory hold a large part of a server's locks.
    LocksHeld,
    /// The queue of notifications of a server fills up.
    NotificationQueue,
    /// No laboratory can be made on a server as it is.
    ServerUnfit,
    /// What is on a server belongs to another registry.
    OtherRegistry,
    /// Every role on the server may connect to the database.
    OpenToPublic,
    /// The registry has another schema version than the database's own history.
    VersionDiffers,
    /// A database's migration history cannot be read.
    UnreadableDatabase,
    /// A laboratory's database that no laboratory has.
    OrphanDatabase,
    /// A laboratory's role that no laboratory has.
    OrphanRole,
    /// The copy in which an operation that has ended verified its dump.
    ScratchLeft,
    /// A database in the making that nobody makes any more.
    MakingLeft,
    /// A template that nothing will be cloned from.
    StaleTemplate,
    /// A database that was kept ready and does not fit this code.
    StaleSpare,
    /// An operation that nobody works on though it is due.
    StuckOperation,
    /// A laboratory that is being made, by nobody.
    ProvisioningWithoutOperation,
    /// A laboratory that is being removed, by nobody.
    DeletingWithoutOperation,
    /// A laboratory that is being restored, by nobody.
    RestoringWithoutOperation,
    /// A recorded archive is not there.
    ArchiveMissing,
    /// A recorded archive has another size than when it was verified.
    ArchiveSizeDiffers,
    /// A file among the archives that no archive is recorded for.
    ArchiveUnrecorded,
    /// The last scheduled backups of a laboratory failed.
    BackupFailing,
    /// The newest backup of a laboratory is older than its schedule allows.
    BackupOverdue,
    /// A host's clock and the registry's differ.
    ClockOffset,
    /// Processes that run sign tokens with different keys.
    SigningKeysDiffer,
    /// Hosts write archives into different stores.
    ArchiveStoresDiffer,
    /// Archives lie in a directory of another host that this one cannot look into.
    ArchiveElsewhere,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::ServerUnreachable,
        Self::ClientPrograms,
        Self::AdministratorRights,
        Self::ArchiveStore,
        Self::ServerReadOnly,
        Self::RegistryReadOnly,
        Self::ServerOverbooked,
        Self::UndecryptableSecret,
        Self::MissingDatabase,
        Self::MissingRole,
        Self::NotOurs,
        Self::RoleCanLogIn,
        Self::RoleCannotLogIn,
        Self::RoleReachesElsewhere,
        Self::RightsUnsettled,
        Self::RoleUnbounded,
        Self::RoleSettings,
        Self::RoleAttributes,
        Self::RoleMembership,
        Self::RightsOfOthers,
        Self::DatabaseSettings,
        Self::LogInWithoutPassword,
        Self::LocksHeld,
        Self::NotificationQueue,
        Self::ServerUnfit,
        Self::OtherRegistry,
        Self::OpenToPublic,
        Self::VersionDiffers,
        Self::UnreadableDatabase,
        Self::OrphanDatabase,
        Self::OrphanRole,
        Self::ScratchLeft,
        Self::MakingLeft,
        Self::StaleTemplate,
        Self::StaleSpare,
        Self::StuckOperation,
        Self::ProvisioningWithoutOperation,
        Self::DeletingWithoutOperation,
        Self::RestoringWithoutOperation,
        Self::ArchiveMissing,
        Self::ArchiveSizeDiffers,
        Self::ArchiveUnrecorded,
        Self::BackupFailing,
        Self::BackupOverdue,
        Self::ClockOffset,
        Self::SigningKeysDiffer,
        Self::ArchiveStoresDiffer,
        Self::ArchiveElsewhere,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerUnreachable => "server_unreachable",
            Self::ClientPrograms => "client_programs",
            Self::AdministratorRights => "administrator_rights",
            Self::ArchiveStore => "archive_store",
            Self::ServerReadOnly => "server_read_only",
            Self::RegistryReadOnly => "registry_read_only",
            Self::ServerOverbooked => "server_overbooked",
            Self::UndecryptableSecret => "undecryptable_secret",
            Self::MissingDatabase => "missing_database",
            Self::MissingRole => "missing_role",
            Self::NotOurs => "not_ours",
            Self::RoleCanLogIn => "role_can_log_in",
            Self::RoleCannotLogIn => "role_cannot_log_in",
            Self::RoleReachesElsewhere => "role_reaches_elsewhere",
            Self::RightsUnsettled => "rights_unsettled",
            Self::RoleUnbounded => "role_unbounded",
            Self::RoleSettings => "role_settings",
            Self::RoleAttributes => "role_attributes",
            Self::RoleMembership => "role_membership",
            Self::RightsOfOthers => "rights_of_others",
            Self::DatabaseSettings => "database_settings",
            Self::LogInWithoutPassword => "log_in_without_password",
            Self::LocksHeld => "locks_held",
            Self::NotificationQueue => "notification_queue",
            Self::ServerUnfit => "server_unfit",
            Self::OtherRegistry => "other_registry",
            Self::OpenToPublic => "open_to_public",
            Self::VersionDiffers => "version_differs",
            Self::UnreadableDatabase => "unreadable_database",
            Self::OrphanDatabase => "orphan_database",
            Self::OrphanRole => "orphan_role",
            Self::ScratchLeft => "scratch_left",
            Self::MakingLeft => "making_left",
            Self::StaleTemplate => "stale_template",
            Self::StaleSpare => "stale_spare",
            Self::StuckOperation => "stuck_operation",
            Self::ProvisioningWithoutOperation => "provisioning_without_operation",
            Self::DeletingWithoutOperation => "deleting_without_operation",
            Self::RestoringWithoutOperation => "restoring_without_operation",
            Self::ArchiveMissing => "archive_missing",
            Self::ArchiveSizeDiffers => "archive_size_differs",
            Self::ArchiveUnrecorded => "archive_unrecorded",
            Self::BackupFailing => "backup_failing",
            Self::BackupOverdue => "backup_overdue",
            Self::ClockOffset => "clock_offset",
            Self::SigningKeysDiffer => "signing_keys_differ",
            Self::ArchiveStoresDiffer => "archive_stores_differ",
            Self::ArchiveElsewhere => "archive_elsewhere",
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::ServerOverbooked
            | Self::OrphanDatabase
            | Self::OrphanRole
            | Self::ScratchLeft
            | Self::MakingLeft
            | Self::StaleTemplate
            | Self::StaleSpare
            | Self::VersionDiffers
            | Self::RoleUnbounded
            | Self::LocksHeld
            | Self::NotificationQueue
            | Self::ArchiveUnrecorded
            | Self::ArchiveElsewhere
            | Self::ClockOffset => Severity::Warning,
            Self::ServerUnreachable
            | Self::ClientPrograms
            | Self::AdministratorRights
            | Self::ArchiveStore
            | Self::ServerReadOnly
            | Self::RegistryReadOnly
            | Self::UndecryptableSecret
            | Self::MissingDatabase
            | Self::MissingRole
            | Self::NotOurs
            | Self::RoleCanLogIn
            | Self::RoleCannotLogIn
            | Self::RoleReachesElsewhere
            | Self::RightsUnsettled
            | Self::RoleSettings
            | Self::RoleAttributes
            | Self::RoleMembership
            | Self::RightsOfOthers
            | Self::DatabaseSettings
            | Self::LogInWithoutPassword
            | Self::ServerUnfit
            | Self::OtherRegistry
            | Self::OpenToPublic
            | Self::UnreadableDatabase
            | Self::StuckOperation
            | Self::ProvisioningWithoutOperation
            | Self::DeletingWithoutOperation
            | Self::RestoringWithoutOperation
            | Self::ArchiveMissing
            | Self::ArchiveSizeDiffers
            | Self::BackupFailing
            | Self::BackupOverdue
            | Self::SigningKeysDiffer
            | Self::ArchiveStoresDiffer => Severity::Error,
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A laboratory is not served, not safe, or cannot be brought back.
    Error,
    /// Something lies about, or a record is behind; nobody is harmed by it now.
    Warning,
}

impl Severity {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// How bad.
    pub severity: Severity,
    /// On which server; absent where it concerns the registry or the archives.
    pub server: Option<ServerName>,
    /// Which database, role, operation, laboratory or file.
    pub subject: String,
    /// The slug of the laboratory that it concerns, where one does.
    pub slug: Option<Slug>,
    /// What was seen.
    pub seen: String,
    /// What to do, with a command to type where there is one.
    pub advice: String,
    /// Whether the doctor may fix it.
    #[serde(rename = "mendable")]
    pub fixable: bool,
    /// Whether it was fixed in this run.
    #[serde(rename = "mended")]
    pub fixed: bool,
    /// Why it could not be fixed, where that was tried.
    #[serde(rename = "notMended")]
    pub not_fixed: Option<String>,
    #[serde(skip)]
    pub(crate) remedy: Option<Remedy>,
}

impl Finding {
    pub(crate) fn new(
        kind: FindingKind,
        subject: impl Into<String>,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            server: None,
            subject: subject.into(),
            slug: None,
            seen: seen.into(),
            advice: advice.into(),
            fixable: false,
            fixed: false,
            not_fixed: None,
            remedy: None,
        }
    }

    pub(crate) fn on(self, server: &ServerName) -> Self {
        Self {
            server: Some(server.clone()),
            ..self
        }
    }

    pub(crate) fn of(self, slug: &Slug) -> Self {
        Self {
            slug: Some(slug.clone()),
            ..self
        }
    }

    pub(crate) fn fixed_by(self, remedy: Remedy) -> Self {
        Self {
            fixable: true,
            remedy: Some(remedy),
            ..self
        }
    }

    /// [`Finding::key`], to be kept.
    pub(super) fn owned_key(&self) -> OwnedKey {
        (self.kind, self.server.clone(), self.subject.clone())
    }

    /// What two looks must both find for it to be told.
    pub(super) fn key(&self) -> (FindingKind, Option<&ServerName>, &str) {
        (self.kind, self.server.as_ref(), &self.subject)
    }
}

/// Which finding it is.
pub(super) type OwnedKey = (FindingKind, Option<ServerName>, String);

/// What fixes a finding. None of it drops what may hold a laboratory's data.
#[derive(Debug, Clone)]
pub(crate) enum Remedy {
    /// Make the server say of the laboratory's role what the registry says of the laboratory.
    Align(TenantId),
    /// Give the laboratory's group its rights, and take them from every other role of the installation.
    Settle(TenantId),
    /// Run statements of a check, which take back what it saw.
    Run {
        /// In this laboratory's database; anywhere on the server when absent.
        database: Option<DbName>,
        statements: Vec<String>,
    },
    /// Make the role again with its stored password, then align it.
    MakeRole(TenantId),
    /// Take every right from PUBLIC.
    CloseToPublic(DbName),
    /// Take a right to connect from the laboratory's role.
    TakeConnect { role: RoleName, database: DbName },
    /// Record the version that the database's own history shows, which is newer.
    RecordVersion(TenantId, SchemaVersion),
    /// Drop a copy that an operation made of what it dumped.
    DropScratch(DbName),
    /// Drop a clone, after a look inside: one in which somebody has begun to be a laboratory stays.
    DropEmptyClone(DbName),
    /// Drop a template.
    DropTemplate(DbName),
    /// Drop a role that owns nothing and has no rights.
    DropRole(RoleName),
    /// Make the operation due and tell the workers.
    Wake(OperationId),
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examined {
    /// Servers that answered.
    pub servers: usize,
    /// Laboratories in the registry.
    pub laboratories: usize,
    /// Databases on the servers, whoever's.
    pub databases: usize,
    /// Roles on the servers, whoever's.
    pub roles: usize,
    /// Operations under way.
    pub operations: usize,
    /// Recorded archives.
    pub archives: usize,
    /// Databases whose own migration history was read.
    pub histories: usize,
}

/// A database of others that is open to every role on a server.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachable {
    /// The server.
    pub server: ServerName,
    /// The database, its owner and what every role may do with it.
    #[serde(flatten)]
    pub open: migrator::OpenDatabase,
}

/// A role with CREATEROLE on a server of PostgreSQL 15 or earlier: it can grant itself any role that is no
/// superuser, a laboratory's too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleCreator {
    /// The server.
    pub server: ServerName,
    /// The role.
    pub role: String,
}

/// What an examination found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing, in the best case; errors first.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub examined: Examined,
    /// Databases of others that every laboratory's role can connect to, which `roles.open_databases` allows.
    pub reachable: Vec<Reachable>,
    /// Roles of others that could let themselves into every laboratory, which PostgreSQL allows up to version
    /// 15.
    pub role_creators: Vec<RoleCreator>,
    /// How long it took, in milliseconds, fixing included.
    pub took_ms: u64,
}

impl Report {
    /// How many findings were fixed in this run.
    #[must_use]
    pub fn fixed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.fixed).count()
    }

    /// How many findings are left after fixing.
    #[must_use]
    pub fn left(&self) -> usize {
        self.findings.iter().filter(|finding| !finding.fixed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_word_in_both_forms() {
        for (at, kind) in FindingKind::ALL.iter().enumerate() {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(
                FindingKind::ALL.iter().position(|k| k.as_str() == kind.as_str()),
                Some(at)
            );
        }
    }
}
