//! What the platform tells others about: the types of events, and how far a delivery of one is.

use crate::{TenantEvent, word::words};

/// The type of an event that is told to others. A type keeps its meaning for ever; new ones may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A laboratory was asked for; it does not serve yet.
    LaboratoryCreated,
    /// It is in service.
    LaboratoryActivated,
    /// Making it failed or was cancelled, and everything of it is gone.
    LaboratoryProvisionUndone,
    /// It is closed for its users.
    LaboratorySuspended,
    /// It is open again.
    LaboratoryResumed,
    /// It is closed, to be archived and removed.
    LaboratoryOffboardRequested,
    /// It is closed while an archive takes the place of what it holds.
    LaboratoryRestoreRequested,
    /// A removal was cancelled, or a restore has ended: it is in the state before.
    LaboratoryReadmitted,
    /// It is gone; its archive is kept.
    LaboratoryRemoved,
    /// An operation is done.
    OperationSucceeded,
    /// An operation ended without success.
    OperationFailed,
    /// An operation was cancelled and is undone.
    OperationCancelled,
    /// An address to which nothing got through is not tried any more. The others are told.
    WebhookDisabled,
    /// An operator tries whether an address can be reached. Only that address gets it, whatever types it
    /// asked for.
    WebhookTest,
}

words!(EventType, "type of event", {
    LaboratoryCreated => "laboratory.created",
    LaboratoryActivated => "laboratory.activated",
    LaboratoryProvisionUndone => "laboratory.provision_undone",
    LaboratorySuspended => "laboratory.suspended",
    LaboratoryResumed => "laboratory.resumed",
    LaboratoryOffboardRequested => "laboratory.offboard_requested",
    LaboratoryRestoreRequested => "laboratory.restore_requested",
    LaboratoryReadmitted => "laboratory.readmitted",
    LaboratoryRemoved => "laboratory.removed",
    OperationSucceeded => "operation.succeeded",
    OperationFailed => "operation.failed",
    OperationCancelled => "operation.cancelled",
    WebhookDisabled => "webhook.disabled",
    WebhookTest => "webhook.test",
});

impl From<TenantEvent> for EventType {
    fn from(event: TenantEvent) -> Self {
        match event {
            TenantEvent::Provisioned => Self::LaboratoryActivated,
            TenantEvent::ProvisionUndone => Self::LaboratoryProvisionUndone,
            TenantEvent::Suspend => Self::LaboratorySuspended,
            TenantEvent::Resume => Self::LaboratoryResumed,
            TenantEvent::Offboard => Self::LaboratoryOffboardRequested,
            TenantEvent::RestoreInPlace => Self::LaboratoryRestoreRequested,
            TenantEvent::CancelOffboard { .. } | TenantEvent::RestoreFinished { .. } => {
                Self::LaboratoryReadmitted
            }
            TenantEvent::OffboardFinished => Self::LaboratoryRemoved,
        }
    }
}

/// How far one event is on its way to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// To be sent, for the first time or again.
    Pending,
    /// The receiver has answered that it has it.
    Delivered,
    /// Given up.
    Failed,
}

words!(DeliveryStatus, "status of a delivery", {
    Pending => "pending",
    Delivered => "delivered",
    Failed => "failed",
});
