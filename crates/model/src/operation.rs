//! What an operation is made of. The steps stand here, as data, so that the registry, the worker, the API and the
//! terminal name them alike.

use crate::words;

/// A durable, stepwise change to one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Make a laboratory.
    Provision,
    /// Bring its schema to the code's version.
    Migrate,
    /// Archive it and remove it.
    Offboard,
}

words!(OperationKind, "kind of operation", {
    Provision => "provision",
    Migrate => "migrate",
    Offboard => "offboard",
});

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationStatus {
    /// Waiting for a worker, at first or after a failed try.
    Pending,
    /// A worker holds its lease.
    Running,
    /// It failed for good and what it made is being taken away.
    Undoing,
    /// Done.
    Succeeded,
    /// Ended without success; its error says why.
    Failed,
}

words!(OperationStatus, "status of an operation", {
    Pending => "pending",
    Running => "running",
    Undoing => "undoing",
    Succeeded => "succeeded",
    Failed => "failed",
});

impl OperationStatus {
    /// Whether nothing will happen to it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

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
    /// Nobody can connect any more and every connection is gone.
    Fence,
    /// `pg_dump` has written the archive file.
    Dump,
    /// The dump was restored beside the original and compared row by row; the archive is recorded.
    Verify,
    /// The database is gone.
    DropDatabase,
    /// The role is gone.
    DropRole,
    /// The tenant's row is gone; the archive's stays.
    RemoveTenant,
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
    DropDatabase => "drop_database",
    DropRole => "drop_role",
    RemoveTenant => "remove_tenant",
});

impl OperationKind {
    /// The steps, in order.
    #[must_use]
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Provision => &[
                Step::EnsureRole,
                Step::EnsureDatabase,
                Step::SecureDatabase,
                Step::EnsureSchema,
                Step::Seed,
                Step::Check,
                Step::Activate,
            ],
            Self::Migrate => &[Step::EnsureSchema, Step::RecordVersion],
            Self::Offboard => &[
                Step::Fence,
                Step::Dump,
                Step::Verify,
                Step::DropDatabase,
                Step::DropRole,
                Step::RemoveTenant,
            ],
        }
    }

    /// What takes away all that a failed operation has made; empty where a failure leaves things as they are.
    #[must_use]
    pub fn undo_steps(self) -> &'static [Step] {
        match self {
            Self::Provision => &[Step::DropDatabase, Step::DropRole, Step::RemoveTenant],
            Self::Migrate | Self::Offboard => &[],
        }
    }
}
