//! What must be there: every laboratory that this program asked for, and the state that it must be in.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use model::{ArchiveId, OperationId, OperationKind, OperationStatus, Slug, TenantId, TenantState};
use registry::Operation;
use uuid::Uuid;

/// A laboratory, and the state that it must be in.
#[derive(Debug)]
pub(crate) struct Laboratory {
    pub(crate) id: TenantId,
    pub(crate) slug: Slug,
    pub(crate) state: TenantState,
    pub(crate) suspended: bool,
    pub(crate) live: Option<(OperationKind, OperationId)>,
    /// Its newest archive, if that holds all its people.
    pub(crate) archive: Option<ArchiveId>,
    /// The ids of its staff, once it has some.
    pub(crate) people: BTreeSet<Uuid>,
}

/// What must be there, by this program's requests and their outcomes.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) laboratories: BTreeMap<TenantId, Laboratory>,
    /// The laboratories that are gone, as they were.
    pub(crate) gone: BTreeMap<TenantId, Laboratory>,
}

impl Expected {
    pub(crate) fn made(&mut self, id: TenantId, slug: Slug, operation: OperationId) {
        let laboratory = Laboratory {
            id,
            slug,
            state: TenantState::Provisioning,
            suspended: false,
            live: Some((OperationKind::Provision, operation)),
            archive: None,
            people: BTreeSet::new(),
        };
        self.laboratories.insert(id, laboratory);
    }

    pub(crate) fn laboratory(&mut self, id: TenantId) -> anyhow::Result<&mut Laboratory> {
        self.laboratories
            .get_mut(&id)
            .context("the laboratory is expected to exist")
    }

    /// The laboratories that are gone and have an archive from which they can be restored.
    pub(crate) fn gone(&self) -> impl Iterator<Item = (TenantId, ArchiveId)> {
        self.gone
            .values()
            .filter_map(|laboratory| Some((laboratory.id, laboratory.archive?)))
    }

    /// A restore of a laboratory that is gone was requested.
    pub(crate) fn comes_back(&mut self, id: TenantId, operation: OperationId) -> anyhow::Result<()> {
        let mut laboratory = self.gone.remove(&id).context("it was gone")?;
        laboratory.state = TenantState::Provisioning;
        laboratory.suspended = false;
        laboratory.live = Some((OperationKind::Restore, operation));
        self.laboratories.insert(id, laboratory);
        Ok(())
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (TenantId, OperationKind, OperationId)> {
        self.laboratories
            .values()
            .filter_map(|lab| lab.live.map(|(kind, operation)| (lab.id, kind, operation)))
    }

    /// Notes the end of an operation and what it means for its laboratory.
    pub(crate) fn ended(
        &mut self,
        id: TenantId,
        kind: OperationKind,
        operation: &Operation,
    ) -> anyhow::Result<()> {
        let laboratory = self.laboratory(id)?;
        laboratory.live = None;
        let after = after(kind, operation.status, laboratory.suspended).with_context(|| {
            format!(
                "{}: {}",
                operation.tenant_slug,
                operation.error_text().unwrap_or_default()
            )
        })?;
        match after {
            Some(state) => laboratory.state = state,
            None => {
                let laboratory = self.laboratories.remove(&id).context("it was there")?;
                if kind != OperationKind::Provision {
                    self.gone.insert(id, laboratory);
                }
            }
        }
        Ok(())
    }
}

impl Laboratory {
    pub(crate) fn state_now(&self) -> TenantState {
        match (self.state, self.suspended) {
            (TenantState::Active, true) => TenantState::Suspended,
            (TenantState::Suspended, false) => TenantState::Active,
            (state, _) => state,
        }
    }
}

/// The state in which an operation's end must leave its laboratory; `None` if the laboratory must be gone.
fn after(
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
