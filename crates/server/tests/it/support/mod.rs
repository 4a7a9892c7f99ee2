//! The real `tenantd` as a process of its own, a client that speaks to it, and laboratories with people in
//! them.

mod door;
mod http;
mod lab;
mod process;
mod world;

use std::time::Duration;

pub(crate) use door::Door;
pub(crate) use http::{Call, Reply};
pub(crate) use lab::{Lab, by_code};
pub(crate) use process::{Tenantd, environment};
pub(crate) use world::{
    OPERATOR, World, accept, add_person, connect, finished, new_lab, operator_token, prepare, provision,
};

/// The body of a removal without a grace period.
pub(crate) fn at_once(slug: &str) -> serde_json::Value {
    serde_json::json!({ "graceSeconds": 0, "confirmSlug": slug })
}

/// Generous: it is spent only when something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// The password of everybody in these tests.
pub(crate) const PASSWORD: &str = "correct horse battery";
