//! What a round asks for, and whom it kills.

use std::time::Duration;

use model::{ArchiveId, Email, OperationId, OperationKind, OperationStatus, Slug, TenantId, TenantState};
use provisioner::{NewAdmin, NewLab, ProvisionError, RequestedBy, RestoreAs};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use registry::RegistryError;
use secrecy::SecretString;

use crate::{
    audit::{Books, Laboratory},
    world::World,
};

/// More are not needed to have operations beside each other, and each costs time to look at.
const LABORATORIES_MAX: usize = 6;
const ASKED_MAX: usize = 3;
/// A grace period that is over within the round, and one that is over only when it is ended.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(86_400);
/// No laboratory is logged in to; what hashing costs is not wanted here.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    First,
    Second,
    Both,
    Postgres,
    Nobody,
}

impl Victim {
    pub(crate) fn choose(rng: &mut StdRng) -> Self {
        match rng.random_range(0..20) {
            0..7 => Self::First,
            7..14 => Self::Second,
            14..17 => Self::Both,
            17..19 => Self::Postgres,
            _ => Self::Nobody,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::First | Self::Second => "one tenantd",
            Self::Both => "both tenantd",
            Self::Postgres => "postgres",
            Self::Nobody => "nobody",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    Provision(u32),
    Suspend(TenantId),
    Resume(TenantId),
    Migrate(TenantId),
    Offboard(TenantId, Duration),
    Backup(TenantId),
    /// What it holds is replaced by its newest archive.
    RestoreInPlace(TenantId, ArchiveId),
    /// One that is gone comes back.
    Restore(TenantId, ArchiveId),
}

impl Choice {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Provision(_) => "provision",
            Self::Suspend(_) => "suspend",
            Self::Resume(_) => "resume",
            Self::Migrate(_) => "migrate",
            Self::Offboard(_, grace) if grace.is_zero() => "offboard at once",
            Self::Offboard(..) => "offboard with grace",
            Self::Backup(_) => "backup",
            Self::RestoreInPlace(..) => "restore in place",
            Self::Restore(..) => "restore",
        }
    }
}

/// Something for one to three laboratories, each at most once.
pub(crate) fn choose(rng: &mut StdRng, books: &Books) -> Vec<Choice> {
    let mut idle: Vec<&Laboratory> = books
        .laboratories
        .values()
        .filter(|lab| lab.live.is_none())
        .collect();
    let mut gone: Vec<(TenantId, ArchiveId)> = books.gone().collect();
    let mut choices = Vec::new();
    for _ in 0..rng.random_range(1..=ASKED_MAX) {
        let full = books.laboratories.len() + choices.len() >= LABORATORIES_MAX;
        if !full && !gone.is_empty() && rng.random_bool(0.15) {
            let (tenant, archive) = gone.swap_remove(rng.random_range(0..gone.len()));
            choices.push(Choice::Restore(tenant, archive));
            continue;
        }
        if idle.is_empty() || (!full && rng.random_bool(0.4)) {
            choices.push(Choice::Provision(rng.random()));
            continue;
        }
        let lab = idle.swap_remove(rng.random_range(0..idle.len()));
        let id = lab.id;
        choices.push(match (rng.random_range(0..14), lab.archive) {
            (0 | 1, _) if lab.suspended => Choice::Resume(id),
            (0 | 1, _) => Choice::Suspend(id),
            (2, _) => Choice::Migrate(id),
            (3..6, _) => Choice::Backup(id),
            (6..8, Some(archive)) => Choice::RestoreInPlace(id, archive),
            (6..11, _) => Choice::Offboard(id, if rng.random() { SHORT } else { LONG }),
            (_, _) => Choice::Offboard(id, Duration::ZERO),
        });
    }
    choices
}

fn by() -> RequestedBy {
    RequestedBy::terminal("chaos")
}

/// Asks, and writes down what must be true from now on.
pub(crate) async fn ask(world: &World, books: &mut Books, choice: Choice) -> anyhow::Result<()> {
    let provisioner = &world.platform.provisioner;
    match choice {
        Choice::Provision(number) => {
            let slug = Slug::parse(&format!("lab-{number:08x}"))?;
            let lab = NewLab {
                slug: slug.clone(),
                name: format!("Laboratory {slug}"),
                time_zone: "Europe/Vienna".to_owned(),
                server: None,
                admin: NewAdmin {
                    email: Email::parse(&format!("ada@{slug}.example"))?,
                    display_name: "Ada".to_owned(),
                    password_hash: Some(SecretString::from(HASH)),
                },
            };
            let (tenant, operation) = provisioner.request_provision(lab, by()).await?;
            books.made(tenant.id, slug, operation);
        }
        Choice::Suspend(id) => {
            provisioner.suspend(id, by()).await?;
            books.laboratory(id)?.suspended = true;
        }
        Choice::Resume(id) => {
            provisioner.resume(id, by()).await?;
            books.laboratory(id)?.suspended = false;
        }
        Choice::Migrate(id) => {
            let operation = provisioner.request_migrate(id, by()).await?;
            books.laboratory(id)?.live = Some((OperationKind::Migrate, operation));
        }
        Choice::Offboard(id, grace) => {
            let operation = provisioner.request_offboard(id, grace, by()).await?;
            books.laboratory(id)?.live = Some((OperationKind::Offboard, operation));
        }
        Choice::Backup(id) => {
            let operation = provisioner.request_backup(id, by()).await?;
            books.laboratory(id)?.live = Some((OperationKind::Backup, operation));
        }
        Choice::RestoreInPlace(id, archive) => {
            let (_, operation) = provisioner.request_restore_in_place(archive, by()).await?;
            books.laboratory(id)?.live = Some((OperationKind::RestoreInPlace, operation));
        }
        Choice::Restore(id, archive) => {
            let (tenant, operation) = provisioner
                .request_restore(archive, RestoreAs::default(), by())
                .await?;
            anyhow::ensure!(tenant.id == id, "{id} came back as {}", tenant.id);
            books.comes_back(id, operation)?;
        }
    }
    Ok(())
}

/// Ends one grace period that is running.
pub(crate) async fn end_one_grace(rng: &mut StdRng, world: &World, books: &Books) -> anyhow::Result<()> {
    let waiting: Vec<OperationId> = books
        .live()
        .filter(|(_, kind, _)| *kind == OperationKind::Offboard)
        .map(|(_, _, operation)| operation)
        .collect();
    let Some(&operation) = waiting.choose(rng) else {
        return Ok(());
    };
    match world.platform.provisioner.end_grace(operation, by()).await {
        Ok(_) | Err(ProvisionError::Registry(RegistryError::NotWaiting { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Calls off one of the operations that are under way, wherever it is. That it is too late is an answer too.
pub(crate) async fn call_one_off(rng: &mut StdRng, world: &World, books: &Books) -> anyhow::Result<()> {
    let live: Vec<OperationId> = books.live().map(|(_, _, operation)| operation).collect();
    let Some(&operation) = live.choose(rng) else {
        return Ok(());
    };
    match world.platform.provisioner.cancel(operation, by()).await {
        Ok(_) | Err(ProvisionError::Registry(RegistryError::NotCancellable { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an operation's end means for its laboratory: where it must stand now, or that it must be gone.
pub(crate) fn after(
    kind: OperationKind,
    status: OperationStatus,
    suspended: bool,
) -> anyhow::Result<Option<TenantState>> {
    let before = if suspended {
        TenantState::Suspended
    } else {
        TenantState::Active
    };
    match (kind, status) {
        (OperationKind::Provision | OperationKind::Restore, OperationStatus::Succeeded) => {
            Ok(Some(TenantState::Active))
        }
        (OperationKind::Provision | OperationKind::Restore, OperationStatus::Cancelled) => Ok(None),
        (
            OperationKind::Migrate | OperationKind::Backup | OperationKind::RestoreInPlace,
            OperationStatus::Succeeded | OperationStatus::Cancelled,
        ) => Ok(Some(before)),
        (OperationKind::Offboard, OperationStatus::Succeeded) => Ok(None),
        (OperationKind::Offboard, OperationStatus::Cancelled) => Ok(Some(before)),
        (OperationKind::Offboard, OperationStatus::Pending) => Ok(Some(TenantState::Deleting)),
        (kind, status) => anyhow::bail!("{kind} ended {status}, which no kill may bring about"),
    }
}
