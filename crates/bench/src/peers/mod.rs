//! The ways to reach a laboratory's database that the scenarios compare: each gets a tenant's number and a
//! piece of work.

mod bouncer;
mod direct;
mod naive;
mod ours;
mod peer;
mod pgbouncer;

use std::sync::Arc;

use anyhow::bail;
use serde_json::Value;

pub(crate) use self::{
    bouncer::Bouncer,
    direct::once,
    naive::bare as bare_pool,
    ours::{Ours, config as ours_config},
    peer::{Failure, NaiveTuning, POINT, Peer, SLEEP, Tuning, Work, item},
};
use crate::fleet::{Fleet, Host};

/// The sides by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    PgBouncer,
    Naive,
    Direct,
}

/// Fails early and says what to install.
pub(crate) fn check_installed() -> anyhow::Result<()> {
    bouncer::program().map(drop)
}

impl Side {
    pub(crate) const ALL: [Self; 4] = [Self::Ours, Self::PgBouncer, Self::Naive, Self::Direct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::PgBouncer => "pgbouncer",
            Self::Naive => "naive",
            Self::Direct => "direct",
        }
    }

    /// The side ready for `tenants` of the host's laboratories, with its configuration.
    pub(crate) async fn open(
        self,
        fleet: &Fleet,
        host: &Host,
        tenants: usize,
        tuning: Tuning,
    ) -> anyhow::Result<(Arc<dyn Peer>, Value)> {
        let Some(tenants) = host.tenants.get(..tenants) else {
            bail!("{} has only {} laboratories", host.name, host.tenants.len());
        };
        Ok(match self {
            Self::Ours => ours::open(fleet, host, tenants).await?,
            Self::Naive => naive::open(tenants, tuning),
            Self::Direct => direct::open(host, tenants),
            Self::PgBouncer => pgbouncer::open(host, tenants, tuning).await?,
        })
    }
}
