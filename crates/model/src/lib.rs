//! Pure types and decisions that every other crate shares: ids, names, the tenant's state machine, schema
//! versions.
//!
//! Invariant: nothing here waits, reads a clock on its own or talks to anything. The model never imports
//! tokio, tokio-postgres or actix; what it decides can be tested with a table.

mod client;
mod clock;
mod email;
mod event;
mod id_prefix;
mod ids;
pub mod input;
mod names;
#[cfg(feature = "openapi")]
pub mod openapi;
mod operation;
mod reason;
mod role;
mod slug;
mod state;
pub mod text;
pub mod time;
mod version;
mod word;

pub use client::ClientNetwork;
pub use clock::{Clock, ManualClock, SystemClock};
pub use email::{Email, EmailError};
pub use event::{DeliveryStatus, EventType};
pub use id_prefix::{IdPrefix, IdPrefixError};
pub use ids::{
    ArchiveId, DeliveryId, EventId, OperationId, OperatorId, RouterId, SessionEpoch, StaffId, TenantId,
    WebhookId,
};
pub use names::{DbName, NameError, Namespace, RoleName, ServerName, quote_ident};
pub use operation::{OperationKind, OperationStatus, Step, StepStatus, UndoReason};
pub use reason::Reason;
pub use role::Role;
pub use slug::{Slug, SlugError};
pub use state::{IllegalTransition, TenantEvent, TenantState};
pub use version::{Fit, SchemaVersion, VersionWindow};
pub use word::UnknownWord;
