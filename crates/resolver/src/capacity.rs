//! Compares how many connections a server accepts with how many the routers may take.

use model::ServerName;
use registry::{Budgets, Overbooked};
use tokio_postgres::Client;

/// How many connections a server accepts, as it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// `max_connections`.
    pub max_connections: usize,
    /// `superuser_reserved_connections`, and since PostgreSQL 16 `reserved_connections`.
    pub reserved: usize,
}

/// The budget does not fit the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a budget of {budget} connections and a reserve of {reserve} exceed the server's max_connections \
     ({max_connections}) less the {reserved} that the server reserves: at most {} are left for the budget; \
     lower the budget, or raise max_connections",
    .max_connections.saturating_sub(reserved + reserve)
)]
pub struct CapacityError {
    /// The most connections that this process would take.
    pub budget: usize,
    /// The connections that are left to others: the registry, LISTEN, dumps, migrations, people.
    pub reserve: usize,
    /// `max_connections`.
    pub max_connections: usize,
    /// How many connections the server reserves for superusers and the like.
    pub reserved: usize,
}

impl Capacity {
    /// Asks a server. Any role may.
    ///
    /// # Errors
    /// The driver's.
    pub async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let row = client
            .query_one(
                "SELECT current_setting('max_connections')::int,
                        current_setting('superuser_reserved_connections')::int
                            + coalesce(current_setting('reserved_connections', true)::int, 0)",
                &[],
            )
            .await?;
        let count = |index| usize::try_from(row.get::<_, i32>(index)).unwrap_or(0);
        Ok(Self {
            max_connections: count(0),
            reserved: count(1),
        })
    }

    /// Whether the budgets of all routers fit together.
    ///
    /// # Errors
    /// [`Overbooked`], with the figures and the setting to change.
    pub fn admit_all(self, server: &ServerName, budgets: Budgets) -> Result<(), Overbooked> {
        budgets.admit(server, self.max_connections, self.reserved)
    }

    /// Whether `budget` connections fit beside `reserve` others.
    ///
    /// # Errors
    /// [`CapacityError`] with the figures.
    pub fn admit(self, budget: usize, reserve: usize) -> Result<(), CapacityError> {
        let Self {
            max_connections,
            reserved,
        } = self;
        if budget + reserve + reserved <= max_connections {
            return Ok(());
        }
        Err(CapacityError {
            budget,
            reserve,
            max_connections,
            reserved,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_say_what_would_fit() {
        let capacity = Capacity {
            max_connections: 100,
            reserved: 3,
        };
        assert_eq!(capacity.admit(81, 16), Ok(()));
        let error = capacity.admit(82, 16).unwrap_err();
        assert!(error.to_string().contains("at most 81 are left"), "{error}");
    }
}
