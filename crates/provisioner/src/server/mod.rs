//! What is done on a tenant server, as its administrator, whatever it is done for.

mod admin_session;
mod connect;
mod database;
pub(crate) mod fence;
mod fitness;
mod ownership;
mod rights;
mod role;
mod settings;

pub(crate) use self::{
    admin_session::{AdminSession, IdleSessions},
    database::{
        await_empty, close_and_drop, end_sessions, end_subscriptions, holds, look, look_for_own,
        open_to_nobody_else, require_own,
    },
    fitness::reachable,
    ownership::ownership_comment,
    rights::{drop_group, limits, log_in, rights, settle},
    role::{create as create_role, create_or_fix, drop_role, drop_role_of, fix_password, role_is_there},
    settings::handed_on,
};
