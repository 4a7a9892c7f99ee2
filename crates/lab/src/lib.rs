//! The laboratory's business: rules and SQL over one connection to one laboratory's database.
//!
//! Every function takes an open transaction, and a function that writes also takes an [`Actor`]; the caller
//! commits. Each write puts its audit event into the same transaction. Whether a role may do something is
//! decided by [`may`], which the server asks before it calls; the rules that must hold for every caller are
//! guards in the database (`migrations-tenant/`), and arrive here as [`LabError::Refused`] should the code
//! above them not have said so first.
//!
//! After an error the transaction must be rolled back, not committed: a bulk call checks all before it
//! writes, but others may have written already.
//!
//! Locks are taken in one order: patients by id, specimens by id, then results by id, then a result's
//! amendment, then orders by id; the change feed's last, at commit. Who enters, verifies or releases a value
//! shares its patient's lock, so that a change of the patient's data is waited for, or waits. Who adds
//! specimens or results to an order holds its specimens first. Where a row moved between two of these locks a
//! deadlock remains possible; PostgreSQL ends it, and [`LabError::may_pass_on_retry`] tells it from a
//! failure.
//!
//! This crate knows nothing of tenancy: it never sees a tenant's name, a pool or a request.

mod accession;
mod actor;
mod age;
pub mod amendments;
pub mod audit;
pub mod catalogue;
mod claim;
pub mod collection;
pub mod critical;
mod delta;
mod entry;
mod enums;
mod error;
mod evaluation;
mod guard;
pub mod history;
pub mod idempotency;
mod ids;
pub mod imports;
pub mod invitations;
mod limits;
mod locks;
mod loinc;
mod moment;
mod number;
mod order_status;
pub mod orders;
pub mod over_time;
mod paging;
mod patch;
pub mod patients;
mod permission;
pub mod profile;
pub mod ranges;
mod reason;
pub mod rejection;
pub mod report;
pub mod result_feed;
mod result_view;
pub mod results;
mod rows;
mod schema;
pub mod signoff;
pub mod specimens;
pub mod staff;
pub mod tenant_export;
mod text;
mod txn;
mod units;
pub mod worklist;

#[doc(hidden)]
pub use accession::accession_at;
pub use actor::Actor;
pub use age::{Age, AgeError};
pub use delta::{change_pct, jumped};
pub use enums::{
    AmendmentKind, AmendmentStatus, Comparator, Flag, ImportFormat, NoRange, OpenStatus, OrderStatus,
    Priority, RangeSex, ResultStatus, Sex, SpecimenStatus, ValueType,
};
pub use error::{FieldProblem, ItemProblem, LabError};
pub use evaluation::OutdatedEvaluation;
pub use guard::Guard;
pub use ids::{AmendmentId, ImportId, NoticeId, OrderId, PatientId, RangeId, ResultId, SpecimenId};
pub use loinc::is_loinc;
pub use moment::When;
pub use number::{Number, NumberError};
pub use paging::{PAGE_ROWS_MAX, Page, PageRequest};
pub use permission::{Action, may};
pub use profile::{LabSeed, seed};
pub use reason::Reason;
pub use txn::Txn;
