//! Who did it: the answer that every event, operation and audit row keeps.

use std::{fmt, net::IpAddr, str::FromStr};

use model::{OperationId, OperatorId, StaffId};

/// Who caused a change, as the registry keeps it: `operator:<id>`, `terminal:<user>`, `worker:<name>`,
/// `staff:<id>`, `anonymous`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person of the platform's staff, through the API.
    Operator(OperatorId),
    /// The person who ran `tenantctl`, by the name of their account on that machine.
    Terminal(String),
    /// A worker that went on by itself, as after a crash.
    Worker(String),
    /// A person of a laboratory.
    Staff(StaffId),
    /// Nobody known, as at a refused log-in.
    Anonymous,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::Terminal(user) => write!(f, "terminal:{user}"),
            Self::Worker(name) => write!(f, "worker:{name}"),
            Self::Staff(id) => write!(f, "staff:{id}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

impl FromStr for Actor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("{text:?} names nobody this version knows");
        match text.split_once(':') {
            Some(("operator", id)) => id.parse().map(Self::Operator).map_err(|_| unknown()),
            Some(("terminal", user)) => Ok(Self::Terminal(user.to_owned())),
            Some(("worker", name)) => Ok(Self::Worker(name.to_owned())),
            Some(("staff", id)) => id.parse().map(Self::Staff).map_err(|_| unknown()),
            None if text == "anonymous" => Ok(Self::Anonymous),
            _ => Err(unknown()),
        }
    }
}

/// The circumstances of a change: they go into the tenant's event and into the audit beside it.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Who caused it.
    pub actor: &'a Actor,
    /// The operation that it is a part of.
    pub operation: Option<OperationId>,
    /// Why, in a person's words.
    pub reason: Option<&'a str>,
    /// The request that asked for it.
    pub request_id: Option<&'a str>,
    /// From where it was asked.
    pub client_ip: Option<IpAddr>,
}

impl<'a> Change<'a> {
    /// A change of which only the actor is known.
    #[must_use]
    pub fn by(actor: &'a Actor) -> Self {
        Self {
            actor,
            operation: None,
            reason: None,
            request_id: None,
            client_ip: None,
        }
    }

    /// The same as a part of an operation.
    #[must_use]
    pub fn in_operation(self, operation: OperationId) -> Self {
        Self {
            operation: Some(operation),
            ..self
        }
    }

    /// What events and audit keep of it beside the actor.
    pub(crate) fn detail(&self) -> serde_json::Value {
        let mut detail = serde_json::Map::new();
        if let Some(operation) = self.operation {
            detail.insert("operation".to_owned(), operation.to_string().into());
        }
        if let Some(reason) = self.reason {
            detail.insert("reason".to_owned(), reason.into());
        }
        detail.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_actor_reads_back_as_it_was_written() {
        let actors = [
            Actor::Operator(OperatorId::generate()),
            Actor::Terminal("a:b".to_owned()),
            Actor::Worker("host:12".to_owned()),
            Actor::Staff(StaffId::generate()),
            Actor::Anonymous,
        ];
        for actor in actors {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        for bad in ["", "operator:x", "root", "daemon:1"] {
            assert!(bad.parse::<Actor>().is_err(), "{bad:?}");
        }
    }
}
