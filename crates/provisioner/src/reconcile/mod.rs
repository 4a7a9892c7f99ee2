//! Reconcilers: each takes no input, looks again and again at what is there, and brings it to what the
//! registry says.

mod fences;
mod schedules;
mod spares;

pub use self::spares::Stocked;
pub(crate) use self::{fences::reconcile_fences, spares::stock};
