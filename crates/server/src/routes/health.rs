//! How one laboratory is.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, get, web};
use model::{Fit, Slug, TenantId, TenantState};
use registry::tenant_by_id;
use resolver::ResolveError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    extract::{Caller, PathId},
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// What is known of one laboratory at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok` when all of the below is in order, else `degraded`.
    status: &'static str,
    registry: RegistryHealth,
    schema: SchemaHealth,
    connection: ConnectionHealth,
    /// Absent while no pool is open.
    pool: Option<PoolHealth>,
}

/// The registry's row.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryHealth {
    #[schema(value_type = Uuid)]
    id: TenantId,
    #[schema(value_type = String)]
    slug: Slug,
    /// One of provisioning, active, suspended, deleting.
    status: TenantState,
    generation: i64,
}

/// The schema's version against the code's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchemaHealth {
    /// The version that the registry has recorded.
    recorded: u32,
    /// The oldest version that this service may serve.
    oldest: u32,
    /// The version that this service was written for.
    newest: u32,
    /// `inside` the window, `behind` or `ahead` of it.
    fit: &'static str,
}

/// A real round trip to the laboratory's database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionHealth {
    /// Whether the database answered.
    ok: bool,
    /// How long the checkout of a connection took, in milliseconds.
    checkout_ms: Option<f64>,
    /// How long the round trip took, in milliseconds.
    round_trip_ms: Option<f64>,
    /// Why it did not answer: a problem's code.
    problem: Option<&'static str>,
}

/// The laboratory's pool in this process.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolHealth {
    size: usize,
    in_use: usize,
    idle: usize,
    waiting: usize,
    max: usize,
}

/// How one laboratory is: for its own staff and for operators.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 200, body = Health)))]
#[get("/tenants/{id}/health")]
pub(crate) async fn health(
    caller: Caller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    if let Caller::Staff(caller) = caller {
        // Another laboratory does not exist for its staff.
        if caller.id() != id.0 {
            return Err(Problem::new(Kind::UnknownTenant));
        }
        match caller.attend().await {
            // That its database cannot be asked is what they want to know.
            Err(problem) if problem.kind().status().is_server_error() => {
                tracing::debug!(code = problem.kind().code(), "a token is taken at its word");
            }
            outcome => drop(outcome?),
        }
    }
    let client = state.registry_client().await?;
    let tenant = tenant_by_id(&client, id.0)
        .await?
        .ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    drop(client);
    let window = state.window();
    let fit = window.fit(tenant.db_version);
    let connection = probe(&state, id.0).await;
    let pool = state.resolver.pool_status(id.0).map(|p| PoolHealth {
        size: p.size,
        in_use: p.in_use,
        idle: p.idle,
        waiting: p.waiting,
        max: p.max,
    });
    let sound = tenant.status.serves() && fit == Fit::Inside && connection.ok;
    Ok(response::ok(&Health {
        status: if sound { "ok" } else { "degraded" },
        registry: RegistryHealth {
            id: tenant.id,
            slug: tenant.slug,
            status: tenant.status,
            generation: tenant.generation,
        },
        schema: SchemaHealth {
            recorded: tenant.db_version.number(),
            oldest: window.oldest.number(),
            newest: window.newest.number(),
            fit: match fit {
                Fit::Inside => "inside",
                Fit::Behind => "behind",
                Fit::Ahead => "ahead",
            },
        },
        connection,
        pool,
    }))
}

async fn probe(state: &AppState, tenant: TenantId) -> ConnectionHealth {
    let ms = |time: Duration| Some(time.as_secs_f64() * 1e3);
    let started = Instant::now();
    let asked = async {
        let mut client = state.resolver.checkout(tenant).await?;
        let checkout = started.elapsed();
        Ok::<_, ResolveError>((checkout, client.ping().await?))
    };
    match asked.await {
        Ok((checkout, round_trip)) => ConnectionHealth {
            ok: true,
            checkout_ms: ms(checkout),
            round_trip_ms: ms(round_trip),
            problem: None,
        },
        Err(error) => {
            tracing::warn!(%error, "a laboratory's health probe failed");
            let problem = Problem::from(error).kind().code();
            ConnectionHealth {
                ok: false,
                checkout_ms: None,
                round_trip_ms: None,
                problem: Some(problem),
            }
        }
    }
}
