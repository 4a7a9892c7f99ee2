//! Chooses what a round requests, and makes the requests.

use std::time::Duration;

use model::{ArchiveId, Email, OperationId, OperationKind, Slug, TenantId};
use provisioner::{NewAdmin, NewLab, ProvisionError, RequestedBy, RestoreAs};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use registry::RegistryError;
use secrecy::SecretString;

use crate::{
    expected::{Expected, Laboratory},
    harness::Harness,
};

/// Enough laboratories for operations that run at the same time; each takes time to check.
const LABORATORIES_MAX: usize = 6;
const ASKED_MAX: usize = 3;
/// A grace period that ends within the round, and one that ends only on request.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(86_400);
/// A cheap hash, because no person logs in.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA";

/// A request to the product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Provision(u32),
    Suspend(TenantId),
    Resume(TenantId),
    Migrate(TenantId),
    Offboard(TenantId, Duration),
    Backup(TenantId),
    /// Replaces the laboratory's data with its newest archive.
    RestoreInPlace(TenantId, ArchiveId),
    /// Restores a laboratory that is gone.
    Restore(TenantId, ArchiveId),
}

impl Request {
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

/// Requests for one to three laboratories, each at most once.
pub(crate) fn choose(rng: &mut StdRng, expected: &Expected) -> Vec<Request> {
    let mut idle: Vec<&Laboratory> = expected
        .laboratories
        .values()
        .filter(|lab| lab.live.is_none())
        .collect();
    let mut gone: Vec<(TenantId, ArchiveId)> = expected.gone().collect();
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(1..=ASKED_MAX) {
        let full = expected.laboratories.len() + requests.len() >= LABORATORIES_MAX;
        if !full && !gone.is_empty() && rng.random_bool(0.15) {
            let (tenant, archive) = gone.swap_remove(rng.random_range(0..gone.len()));
            requests.push(Request::Restore(tenant, archive));
            continue;
        }
        if idle.is_empty() || (!full && rng.random_bool(0.4)) {
            requests.push(Request::Provision(rng.random()));
            continue;
        }
        let lab = idle.swap_remove(rng.random_range(0..idle.len()));
        let id = lab.id;
        requests.push(match (rng.random_range(0..14), lab.archive) {
            (0 | 1, _) if lab.suspended => Request::Resume(id),
            (0 | 1, _) => Request::Suspend(id),
            (2, _) => Request::Migrate(id),
            (3..6, _) => Request::Backup(id),
            (6..8, Some(archive)) => Request::RestoreInPlace(id, archive),
            (6..11, _) => Request::Offboard(id, if rng.random() { SHORT } else { LONG }),
            (_, _) => Request::Offboard(id, Duration::ZERO),
        });
    }
    requests
}

fn by() -> RequestedBy {
    RequestedBy::terminal("chaos")
}

/// Makes the request, and notes what must be true from now on.
pub(crate) async fn ask(harness: &Harness, expected: &mut Expected, request: Request) -> anyhow::Result<()> {
    let provisioner = &harness.platform.provisioner;
    match request {
        Request::Provision(number) => {
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
            expected.made(tenant.id, slug, operation);
        }
        Request::Suspend(id) => {
            provisioner.suspend(id, by()).await?;
            expected.laboratory(id)?.suspended = true;
        }
        Request::Resume(id) => {
            provisioner.resume(id, by()).await?;
            expected.laboratory(id)?.suspended = false;
        }
        Request::Migrate(id) => {
            let operation = provisioner.request_migrate(id, by()).await?;
            expected.laboratory(id)?.live = Some((OperationKind::Migrate, operation));
        }
        Request::Offboard(id, grace) => {
            let operation = provisioner.request_offboard(id, grace, by()).await?;
            expected.laboratory(id)?.live = Some((OperationKind::Offboard, operation));
        }
        Request::Backup(id) => {
            let operation = provisioner.request_backup(id, by()).await?;
            expected.laboratory(id)?.live = Some((OperationKind::Backup, operation));
        }
        Request::RestoreInPlace(id, archive) => {
            let (_, operation) = provisioner.request_restore_in_place(archive, by()).await?;
            expected.laboratory(id)?.live = Some((OperationKind::RestoreInPlace, operation));
        }
        Request::Restore(id, archive) => {
            let (tenant, operation) = provisioner
                .request_restore(archive, RestoreAs::default(), by())
                .await?;
            anyhow::ensure!(tenant.id == id, "{id} came back as {}", tenant.id);
            expected.comes_back(id, operation)?;
        }
    }
    Ok(())
}

/// Ends one running grace period.
pub(crate) async fn end_one_grace(
    rng: &mut StdRng,
    harness: &Harness,
    expected: &Expected,
) -> anyhow::Result<()> {
    let waiting: Vec<OperationId> = expected
        .live()
        .filter(|(_, kind, _)| *kind == OperationKind::Offboard)
        .map(|(_, _, operation)| operation)
        .collect();
    let Some(&operation) = waiting.choose(rng) else {
        return Ok(());
    };
    match harness.platform.provisioner.end_grace(operation, by()).await {
        Ok(_) | Err(ProvisionError::Registry(RegistryError::NotWaiting { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cancels one of the operations under way, at whatever point it is. A refusal because it is too late is
/// fine.
pub(crate) async fn cancel_one(
    rng: &mut StdRng,
    harness: &Harness,
    expected: &Expected,
) -> anyhow::Result<()> {
    let live: Vec<OperationId> = expected.live().map(|(_, _, operation)| operation).collect();
    let Some(&operation) = live.choose(rng) else {
        return Ok(());
    };
    match harness.platform.provisioner.cancel(operation, by()).await {
        Ok(_) | Err(ProvisionError::Registry(RegistryError::NotCancellable { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
