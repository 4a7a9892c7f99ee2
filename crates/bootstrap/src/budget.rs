//! Whether the servers can hold the connections that this process is allowed to take.
//!
//! A budget that a server cannot hold would show only under load, as refused connections (SQLSTATE 53300) of
//! whoever comes last: people, dumps, the registry. So it is compared at the start, and what does not fit
//! does not start. A server that does not answer now is told and passed over; the router compares again
//! before it lends its first connection to it.

use std::time::Duration;

use model::ServerName;
use pg::ConnectTarget;
use registry::Overbooked;
use resolver::Capacity;
use tokio::task::JoinSet;

use crate::{Platform, PlatformError};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

impl Platform {
    /// That every server of the registry can hold `budget` connections of this process beside `reserve` of
    /// others.
    ///
    /// Gives the capacity of each server that answered, for [`Platform::overbooked`].
    ///
    /// # Errors
    /// [`PlatformError::BudgetTooLarge`] names the first server that cannot; [`PlatformError::Registry`] or
    /// [`PlatformError::Sealed`] when the servers cannot be read.
    pub async fn check_budget(
        &self,
        budget: usize,
        reserve: usize,
    ) -> Result<Vec<(ServerName, Capacity)>, PlatformError> {
        let servers = registry::servers_list(&self.registry.client().await?).await?;
        let mut asked = JoinSet::new();
        for server in servers {
            let target = ConnectTarget {
                password: self.open_password(&server)?,
                host: server.host,
                port: server.port,
                user: server.admin_user,
                database: migrator::MAINTENANCE_DATABASE.to_owned(),
            };
            // All at once: those that do not answer make the start wait no longer than one of them does.
            asked.spawn(capacity(server.name, target));
        }
        let mut answers: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (server, capacity) in &answers {
            capacity
                .admit(budget, reserve)
                .map_err(|source| PlatformError::BudgetTooLarge {
                    server: server.to_string(),
                    source,
                })?;
        }
        Ok(answers)
    }

    /// The servers that cannot hold the budgets of all running routers and of this process together.
    /// `instance`: what this process is called, so that its predecessor is not counted beside it.
    ///
    /// # Errors
    /// [`PlatformError::Registry`] when the registry cannot be asked.
    pub async fn overbooked(
        &self,
        servers: &[(ServerName, Capacity)],
        budget: usize,
        reserve: usize,
        instance: Option<&str>,
    ) -> Result<Vec<Overbooked>, PlatformError> {
        let client = self.registry.client().await?;
        let all = registry::router_budgets(&client, instance)
            .await?
            .and(budget, reserve);
        let compared = servers
            .iter()
            .filter_map(|(server, capacity)| capacity.admit_all(server, all).err());
        Ok(compared.collect())
    }
}

/// What the server says of itself, if it answers.
async fn capacity(server: ServerName, target: ConnectTarget) -> Option<(ServerName, Capacity)> {
    let unanswered = |reason: String| {
        tracing::warn!(
            server = %server,
            reason,
            "the server does not answer, so whether it can hold router.budget is not known yet"
        );
    };
    let client = match pg::connect(&target, "tenantry start", CONNECT_LIMIT).await {
        Ok(client) => client,
        Err(error) => {
            unanswered(error.to_string());
            return None;
        }
    };
    match tokio::time::timeout(CONNECT_LIMIT, Capacity::read(&client)).await {
        Ok(Ok(capacity)) => Some((server, capacity)),
        Ok(Err(error)) => {
            unanswered(pg::describe(&error));
            None
        }
        Err(_elapsed) => {
            unanswered(format!("nothing came within {} ms", CONNECT_LIMIT.as_millis()));
            None
        }
    }
}
