//! Routers: the processes that connect to laboratories' databases, and what each has let go of.
//!
//! A registration is a lease on being waited for: an operation that wants a laboratory for itself waits for
//! the routers that are registered and alive, and for no other. Its end is set and compared by the database's
//! clock alone. A router acknowledges a generation when it holds nothing of the laboratory and uses nothing
//! that it read before; that stays true for ever, so an acknowledgement never goes back and outlives a
//! registration that ran out and was renewed.
//!
//! Notifications only make it quick: [`fences_unacknowledged`] is read from the rows, so a router that missed
//! one finds out by asking.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{RouterId, ServerName, TenantId};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{PAGE_MAX, RegistryError, paging::page_limit, row::Reader, sql};

/// A registered router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Its id, from its start to its end.
    pub id: RouterId,
    /// Its host and process id, for people.
    pub name: String,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it was heard of last.
    pub renewed_at: Timestamp,
    /// When it counts as dead unless it is heard of again.
    pub expires_at: Timestamp,
    /// Whether that has not come yet, by the registry's clock.
    pub alive: bool,
}

/// What a router says of itself when it registers.
#[derive(Debug, Clone, Copy)]
pub struct NewRouter<'a> {
    /// Its id, from its start to its end.
    pub id: RouterId,
    /// Its host and process id, for people.
    pub name: &'a str,
    /// What it is called among its like, the same after a restart: of two that are alive only the later one
    /// counts.
    pub instance: Option<&'a str>,
    /// The most connections that it makes to one server.
    pub budget: usize,
    /// How many connections of each server it leaves to others than routers.
    pub reserve: usize,
}

/// The budgets of all routers that are alive, together: what they may take of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    /// How many routers.
    pub routers: usize,
    /// The sum of their budgets, of those that said one.
    pub connections: usize,
    /// What is to be left to others than routers: the largest reserve of any.
    pub reserve: usize,
    /// How many are of an older version, which does not say its budget.
    pub unknown: usize,
}

/// The budgets of all routers together do not fit a server, though each alone may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{routers} routers may open {connections} connections to server {server} together; of its \
     {max_connections} (max_connections) it reserves {reserved} itself and {reserve} are left to others \
     (router.reserve), so {} are there for all routers and the rest is refused under load: set router.budget \
     to at most {} on each router, or max_connections to at least {}",
    .max_connections.saturating_sub(reserved + reserve),
    .max_connections.saturating_sub(reserved + reserve) / .routers.max(&1),
    connections + reserve + reserved
)]
pub struct Overbooked {
    /// The server's name in the registry.
    pub server: ServerName,
    /// How many routers are alive.
    pub routers: usize,
    /// The sum of their budgets.
    pub connections: usize,
    /// What is to be left to others than routers.
    pub reserve: usize,
    /// `max_connections`.
    pub max_connections: usize,
    /// What the server reserves itself.
    pub reserved: usize,
}

impl Budgets {
    /// Whether they fit a server with this `max_connections`, of which it reserves some itself. One router
    /// alone is compared at its own start; one that does not say its budget is not counted.
    ///
    /// # Errors
    /// [`Overbooked`] with the figures and what to set.
    pub fn admit(
        self,
        server: &ServerName,
        max_connections: usize,
        reserved: usize,
    ) -> Result<(), Overbooked> {
        let Self {
            routers,
            connections,
            reserve,
            ..
        } = self;
        if connections + reserve + reserved <= max_connections {
            return Ok(());
        }
        Err(Overbooked {
            server: server.clone(),
            routers,
            connections,
            reserve,
            max_connections,
            reserved,
        })
    }

    /// These and one more router.
    #[must_use]
    pub fn and(self, budget: usize, reserve: usize) -> Self {
        Self {
            routers: self.routers + 1,
            connections: self.connections + budget,
            reserve: self.reserve.max(reserve),
            ..self
        }
    }
}

/// A laboratory that does not serve, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantFence {
    /// The laboratory.
    pub tenant: TenantId,
    /// The generation of its row.
    pub generation: i64,
}

/// Clears away routers that have been dead for a minute, which leaves people the time to see them: a hundred
/// at most, and without waiting for those that another is clearing away. $1: the router that is well.
macro_rules! sweep_routers {
    () => {
        "WITH swept AS (
             DELETE FROM routers WHERE id IN (
                 SELECT id FROM routers
                 WHERE id <> $1 AND expires_at < clock_timestamp() - interval '1 minute'
                 LIMIT 100 FOR UPDATE SKIP LOCKED
             )
         ) "
    };
}

/// Registers a router for `ttl`, or renews it if it is registered already.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn router_register(
    client: &impl GenericClient,
    router: &NewRouter<'_>,
    ttl: Duration,
) -> Result<(), RegistryError> {
    let statement = concat!(
        sweep_routers!(),
        "INSERT INTO routers (id, name, instance, budget, reserve, registered_at, renewed_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => $6))
         ON CONFLICT (id) DO UPDATE SET renewed_at = excluded.renewed_at, expires_at = excluded.expires_at"
    );
    let count = |connections| i32::try_from(connections).unwrap_or(i32::MAX);
    let params: [&(dyn ToSql + Sync); 6] = [
        &router.id.as_uuid(),
        &router.name,
        &router.instance,
        &count(router.budget),
        &count(router.reserve),
        &ttl.as_secs_f64(),
    ];
    sql::touched(client, "registering a router", statement, &params).await?;
    Ok(())
}

/// Renews a registration for `ttl` from now, also one that ran out. `false`: it was cleared away; register
/// anew.
///
/// Takes the chance to clear away routers that are dead, and acknowledgements of this one that nobody asks
/// for any more: of laboratories that serve again or are gone.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn router_renew(
    client: &impl GenericClient,
    id: RouterId,
    ttl: Duration,
) -> Result<bool, RegistryError> {
    let statement = concat!(
        sweep_routers!(),
        ", passed AS (
             DELETE FROM router_acks AS a WHERE router_id = $1 AND NOT EXISTS (
                 SELECT FROM tenants AS t WHERE t.id = a.tenant_id AND t.status IN ('suspended', 'deleting', 'restoring'))
         )
         UPDATE routers SET renewed_at = clock_timestamp(),
             expires_at = clock_timestamp() + make_interval(secs => $2) WHERE id = $1"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &ttl.as_secs_f64()];
    Ok(sql::touched(client, "renewing a router's registration", statement, &params).await? > 0)
}

/// The budgets of the routers that are alive, also of one whose end has not been noticed yet; not of those
/// called `except`. An instance that was started again counts once: its predecessor's connections count
/// against its own budget.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn router_budgets(
    client: &impl GenericClient,
    except: Option<&str>,
) -> Result<Budgets, RegistryError> {
    let statement = "SELECT count(*), coalesce(sum(budget), 0), coalesce(max(reserve), 0)::bigint,
                count(*) FILTER (WHERE budget IS NULL)
         FROM (SELECT DISTINCT ON (coalesce(instance, id::text)) budget, reserve FROM routers
                WHERE expires_at > clock_timestamp() AND ($1::text IS NULL OR instance IS DISTINCT FROM $1)
                ORDER BY coalesce(instance, id::text), registered_at DESC, id) AS alive";
    let row = sql::row_one(client, "adding up the routers' budgets", statement, &[&except]).await?;
    let count = |index| usize::try_from(row.get::<_, i64>(index)).unwrap_or(usize::MAX);
    Ok(Budgets {
        routers: count(0),
        connections: count(1),
        reserve: count(2),
        unknown: count(3),
    })
}

/// Ends a registration: nobody waits for this router any more. It must hold no connection of any laboratory.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn router_unregister(client: &impl GenericClient, id: RouterId) -> Result<(), RegistryError> {
    let statement = "DELETE FROM routers WHERE id = $1";
    sql::touched(
        client,
        "ending a router's registration",
        statement,
        &[&id.as_uuid()],
    )
    .await?;
    Ok(())
}

/// Notes that a router holds nothing of these laboratories and uses nothing that it read about them before
/// the generation. A lower generation than is noted already changes nothing. `false`: the registration was
/// cleared away; register anew.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn router_acknowledge(
    client: &impl GenericClient,
    id: RouterId,
    fences: &[TenantFence],
) -> Result<bool, RegistryError> {
    let statement = "INSERT INTO router_acks AS mine (router_id, tenant_id, generation)
         SELECT $1::uuid, tenant, max(generation) FROM unnest($2::uuid[], $3::int8[]) AS let_go (tenant, generation)
         GROUP BY tenant
         ON CONFLICT (router_id, tenant_id) DO UPDATE SET generation = excluded.generation
             WHERE mine.generation < excluded.generation";
    let tenants: Vec<Uuid> = fences.iter().map(|fence| fence.tenant.as_uuid()).collect();
    let generations: Vec<i64> = fences.iter().map(|fence| fence.generation).collect();
    let params: [&(dyn ToSql + Sync); 3] = [&id.as_uuid(), &tenants, &generations];
    match sql::touched(
        client,
        "acknowledging what a router let go of",
        statement,
        &params,
    )
    .await
    {
        Ok(_) => Ok(true),
        Err(error) if error.violated() == Some("router_acks_router_id_fkey") => Ok(false),
        Err(error) => Err(error),
    }
}

/// The laboratories that do not serve and whose present generation this router has not acknowledged: at most
/// [`crate::PAGE_MAX`], those that have waited longest first.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn fences_unacknowledged(
    client: &impl GenericClient,
    id: RouterId,
) -> Result<Vec<TenantFence>, RegistryError> {
    let statement = "SELECT t.id, t.generation FROM tenants AS t
         WHERE t.status IN ('suspended', 'deleting', 'restoring') AND NOT EXISTS (
             SELECT FROM router_acks AS a
             WHERE a.router_id = $1 AND a.tenant_id = t.id AND a.generation >= t.generation)
         ORDER BY t.generation LIMIT $2";
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &page_limit(PAGE_MAX)];
    let rows = sql::rows(client, "looking for laboratories that closed", statement, &params).await?;
    let fence = |row: &Row| {
        let r = Reader::new(row, "tenants", "id");
        Ok(TenantFence {
            tenant: r.id("id")?,
            generation: r.get("generation")?,
        })
    };
    rows.iter().map(fence).collect()
}

macro_rules! columns {
    () => {
        "id, name, registered_at, renewed_at, expires_at, expires_at > clock_timestamp() AS alive"
    };
}

/// The routers that are alive and have not acknowledged this generation of a laboratory, or a later one: at
/// most [`crate::PAGE_MAX`], by name.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn routers_outstanding(
    client: &impl GenericClient,
    fence: TenantFence,
) -> Result<Vec<Router>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM routers
         WHERE expires_at > clock_timestamp() AND NOT EXISTS (
             SELECT FROM router_acks AS a
             WHERE a.router_id = routers.id AND a.tenant_id = $1 AND a.generation >= $2)
         ORDER BY name, id LIMIT $3"
    );
    let params: [&(dyn ToSql + Sync); 3] =
        [&fence.tenant.as_uuid(), &fence.generation, &page_limit(PAGE_MAX)];
    let rows = sql::rows(client, "asking which routers have not let go", statement, &params).await?;
    rows.iter().map(from_row).collect()
}

/// All routers, by name, also those that died a moment ago: at most [`crate::PAGE_MAX`].
///
/// # Errors
/// As [`routers_outstanding`].
pub async fn routers_list(client: &impl GenericClient) -> Result<Vec<Router>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM routers ORDER BY name, id LIMIT $1");
    let rows = sql::rows(client, "listing routers", statement, &[&page_limit(PAGE_MAX)]).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<Router, RegistryError> {
    let r = Reader::new(row, "routers", "id");
    Ok(Router {
        id: r.id("id")?,
        name: r.get("name")?,
        registered_at: r.get("registered_at")?,
        renewed_at: r.get("renewed_at")?,
        expires_at: r.get("expires_at")?,
        alive: r.get("alive")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budgets_of_all_routers_are_added_up_and_the_message_says_what_to_set() {
        let server = ServerName::parse("main").unwrap();
        let two = Budgets::default().and(64, 16).and(64, 10);
        assert_eq!(two.admit(&server, 147, 3), Ok(()));
        let message = two.admit(&server, 100, 3).unwrap_err().to_string();
        for part in [
            "2 routers",
            "128 connections",
            "server main",
            "81 are there",
            "at most 40",
            "least 147",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
