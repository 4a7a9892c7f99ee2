//! The words for operations: kinds, statuses and steps. They stand here so that the registry, the worker, the
//! API and the terminal name them alike. Which steps a kind of operation has, and in which order, the
//! provisioner says.

use crate::word::words;

/// A durable, stepwise change to one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Make a laboratory.
    Provision,
    /// Take over a laboratory that has a database of its own already.
    Adopt,
    /// Bring its schema to the code's version.
    Migrate,
    /// Archive it while it runs.
    Backup,
    /// Make a laboratory out of an archive: the one that was removed, or another beside the one that lives.
    Restore,
    /// Put an archive in the place of what a laboratory holds.
    RestoreInPlace,
    /// Archive it and remove it.
    Offboard,
    /// Verify an archive once more; its laboratory may be gone.
    VerifyArchive,
    /// Take a dump and its manifest into the registry, which does not know them; its laboratory may be gone.
    ImportArchive,
}

words!(OperationKind, "kind of operation", {
    Provision => "provision",
    Adopt => "adopt",
    Migrate => "migrate",
    Backup => "backup",
    Restore => "restore",
    RestoreInPlace => "restore_in_place",
    Offboard => "offboard",
    VerifyArchive => "verify_archive",
    ImportArchive => "import_archive",
});

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationStatus {
    /// Waiting for a worker, at first or after a failed try.
    Pending,
    /// A worker holds its lease.
    Running,
    /// It failed for good or was cancelled, and what it made is being taken away.
    Undoing,
    /// Done.
    Succeeded,
    /// Ended without success; its error says why.
    Failed,
    /// Called off, and everything is as it was before.
    Cancelled,
}

words!(OperationStatus, "status of an operation", {
    Pending => "pending",
    Running => "running",
    Undoing => "undoing",
    Succeeded => "succeeded",
    Failed => "failed",
    Cancelled => "cancelled",
});

impl OperationStatus {
    /// Whether nothing will happen to it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why what an operation made is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UndoReason {
    /// It failed for good.
    Failed,
    /// An operator cancelled it.
    Cancelled,
}

words!(UndoReason, "reason of an undoing", {
    Failed => "failed",
    Cancelled => "cancelled",
});

/// How far one step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Begun; after a crash it is run again.
    Running,
    /// Done; it is not run again.
    Done,
    /// Its last try failed.
    Failed,
}

words!(StepStatus, "status of a step", {
    Running => "running",
    Done => "done",
    Failed => "failed",
});

/// One step of an operation. Each looks before it acts, so it can be run again after a crash anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The laboratory's log-in role exists, with the stored password, and owns nothing.
    EnsureRole,
    /// Its database exists, cloned from the template, closed to everyone.
    EnsureDatabase,
    /// Only its own role may connect, and connections are allowed.
    SecureDatabase,
    /// The schema is at the code's version.
    EnsureSchema,
    /// The profile and the first staff member are there.
    Seed,
    /// All of the above is looked at once more, through the laboratory's own role.
    Check,
    /// The tenant becomes `active`: the last step of provisioning.
    Activate,
    /// The version found in the laboratory's own history is written to the registry.
    RecordVersion,
    /// No role can connect any more, and every connection is gone.
    Fence,
    /// `pg_dump` has written the archive file, and its manifest says what the database held in the same
    /// snapshot.
    Dump,
    /// The dump was restored beside the original and holds what its manifest says; the archive is recorded.
    Verify,
    /// The time in which a removal can be cancelled is over.
    Grace,
    /// What was closed for a removal or a restore is open again, and the laboratory is in the state before.
    Readmit,
    /// The database is gone.
    DropDatabase,
    /// The role is gone.
    DropRole,
    /// The tenant's row is gone; the archive's stays.
    RemoveTenant,
    /// The database to be taken over is there, nobody's, and a laboratory of a known version; it is marked.
    Inspect,
    /// Its migration history says which migrations it has already.
    Baseline,
    /// The mark and the rights that adopting set are taken back; the database itself stays.
    Release,
    /// The archive is restored into a database of its own and holds what the manifest says.
    RestoreDatabase,
    /// The restored database has the laboratory's name, and the one before another.
    SwapDatabase,
    /// The database that was replaced is gone.
    DropReplaced,
    /// A database that was restored and is not needed is gone.
    DropRestored,
    /// Archives past their time are gone.
    Prune,
}

words!(Step, "step", {
    EnsureRole => "ensure_role",
    EnsureDatabase => "ensure_database",
    SecureDatabase => "secure_database",
    EnsureSchema => "ensure_schema",
    Seed => "seed",
    Check => "check",
    Activate => "activate",
    RecordVersion => "record_version",
    Fence => "fence",
    Dump => "dump",
    Verify => "verify",
    Grace => "grace",
    Readmit => "readmit",
    DropDatabase => "drop_database",
    DropRole => "drop_role",
    RemoveTenant => "remove_tenant",
    Inspect => "inspect",
    Baseline => "baseline",
    Release => "release",
    RestoreDatabase => "restore_database",
    SwapDatabase => "swap_database",
    DropReplaced => "drop_replaced",
    DropRestored => "drop_restored",
    Prune => "prune",
});

impl OperationKind {
    /// Whether there is something to take away of an operation that failed for good or was cancelled.
    #[must_use]
    pub fn can_be_undone(self) -> bool {
        match self {
            Self::Provision | Self::Adopt | Self::Restore | Self::RestoreInPlace | Self::Offboard => true,
            Self::Migrate | Self::Backup | Self::VerifyArchive | Self::ImportArchive => false,
        }
    }

    /// Whether a failure for good is undone without anybody asking. A removal that failed stays closed and
    /// whole, to be gone on with or cancelled: to open a laboratory again is a person's decision.
    #[must_use]
    pub fn failure_is_undone(self) -> bool {
        match self {
            Self::Provision | Self::Adopt | Self::Restore | Self::RestoreInPlace => true,
            Self::Migrate | Self::Backup | Self::Offboard | Self::VerifyArchive | Self::ImportArchive => {
                false
            }
        }
    }
}
