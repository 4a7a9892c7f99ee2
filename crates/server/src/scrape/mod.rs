//! Figures that are read at the scrape: the router's, and the operations and webhooks under way.
//!
//! Invariant: the number of series is bounded. Laboratories and servers beyond those with a label of their
//! own are added up under `other`.

mod backups;
mod figures;
mod router;
mod servers;
mod tenants;
mod totals;
mod webhooks;

use model::OperationStatus;
use prometheus_client::{
    metrics::{
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use registry::{OperationFilter, operations_list};

use crate::{problem::ApiResult, state::AppState};

use figures::{StatusLabels, counter, gauge, number};

pub(crate) use totals::Totals;

/// Reads the figures of this moment into a registry of their own. The master database being away is a figure,
/// too.
pub async fn read(state: &AppState) -> Registry {
    let mut out = Registry::with_prefix("tenantry");
    let stats = state.resolver.stats();
    router::put(&mut out, &stats);
    servers::put(&mut out, &state.metrics, &stats.servers);
    tenants::put(&mut out, &state.metrics, &stats.tenants);
    webhooks::put(&mut out, &state.outbox.stats());
    counter(
        &mut out,
        "password_hashes",
        "Passwords that were hashed or verified",
        state.passwords.hashed_total(),
    );
    gauge(
        &mut out,
        "password_hashes_waiting",
        "Callers that wait for their turn to hash a password",
        number(state.passwords.waiting()),
    );
    if let Ok(queued) = webhooks::queued(state).await {
        webhooks::put_queued(&mut out, queued);
    }
    // The registry's other figures are read where this succeeds; `registry_up` says where it does not.
    if let Ok(read) = backups::read(state).await {
        backups::put(&mut out, &read);
    }
    if let Some(offset) = state.clock.offset() {
        out.register_with_unit(
            "clock_offset",
            "How far this machine's clock is ahead of the registry's, which is used instead",
            Unit::Seconds,
            ConstGauge::new(offset.as_secs_f64()),
        );
    }
    match live_operations(state).await {
        Ok(counts) => {
            let family = Family::<StatusLabels, Gauge>::default();
            for (status, count) in counts {
                family.get_or_create(&StatusLabels { status }).set(count);
            }
            out.register(
                "operations_live",
                "Operations that have not ended, at most 500 counted",
                family,
            );
            gauge(&mut out, "registry_up", "Whether the registry answered", 1);
        }
        Err(_unavailable) => gauge(&mut out, "registry_up", "Whether the registry answered", 0),
    }
    out
}

/// Counts the operations that have not ended; every status has its figure, also when it is zero.
async fn live_operations(state: &AppState) -> ApiResult<Vec<(&'static str, i64)>> {
    let client = state.registry_client().await?;
    let filter = OperationFilter {
        live: true,
        ..OperationFilter::default()
    };
    let live = operations_list(&client, &filter, None, registry::PAGE_MAX).await?;
    let statuses = OperationStatus::ALL.iter().filter(|status| !status.is_final());
    Ok(statuses
        .map(|&status| {
            (
                status.as_str(),
                number(live.iter().filter(|op| op.status == status).count()),
            )
        })
        .collect())
}
