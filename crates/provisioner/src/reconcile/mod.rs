//! Reconcilers: each takes no input, looks again and again at what is there, and brings it to what the registry says.

mod schedules;
mod spares;
mod sweep;

pub use self::spares::Stocked;
pub(crate) use self::{spares::stock, sweep::sweep};
