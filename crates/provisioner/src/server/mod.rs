//! What is done on a tenant server, as its administrator, whatever it is done for.

mod check;
mod reach;
mod rights;

pub(crate) use self::{
    check::reachable,
    reach::{Kept, Session},
    rights::{drop_group, limits, log_in, rights, settle},
};
