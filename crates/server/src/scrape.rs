//! Figures that are read at the scrape: pools, connections, operations.
//!
//! Laboratories beyond those with a label of their own are added up under `other`.

use std::collections::BTreeMap;

use model::OperationStatus;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use registry::{OperationFilter, operations_list};
use resolver::{PoolStatus, ResolverStats};

use crate::{metrics::TenantLabels, problem::Answer, state::AppState};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// Reads the figures of this moment into a registry of their own. The master database being away is a figure, too.
pub async fn read(state: &AppState) -> Registry {
    let mut out = Registry::with_prefix("tenantry");
    let stats = state.resolver.stats();
    pools(&mut out, &stats);
    connections(&mut out, state, &stats);
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

fn gauge(out: &mut Registry, name: &str, help: &str, value: i64) {
    out.register(name, help, ConstGauge::new(value));
}

fn counter(out: &mut Registry, name: &str, help: &str, value: u64) {
    out.register(name, help, ConstCounter::new(value));
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn pools(out: &mut Registry, stats: &ResolverStats) {
    gauge(
        out,
        "pools_open",
        "Laboratories with an open pool",
        number(stats.pools_open),
    );
    gauge(
        out,
        "pools_max",
        "Most laboratories that may have an open pool",
        number(stats.pools_max),
    );
    counter(
        out,
        "pools_evicted",
        "Pools closed to make room for another",
        stats.evictions.least_recently_used,
    );
    counter(
        out,
        "pools_closed",
        "Pools closed, for whatever reason",
        stats.evictions.total(),
    );
    gauge(
        out,
        "connections",
        "Connections to laboratories' databases",
        number(stats.connections),
    );
    counter(
        out,
        "connects",
        "Connections made to laboratories' databases",
        stats.connects_total,
    );
    counter(
        out,
        "connect_errors",
        "Connections that could not be made",
        stats.connect_errors_total,
    );
    counter(
        out,
        "connections_discarded",
        "Connections closed with work under way",
        stats.discarded_total,
    );
    counter(
        out,
        "checkout_timeouts",
        "Waits for a connection that ended without",
        stats.checkout_timeouts_total,
    );
    counter(
        out,
        "snapshot_hits",
        "Look-ups of a laboratory from memory",
        stats.snapshot_hits_total,
    );
    counter(
        out,
        "snapshot_misses",
        "Look-ups of a laboratory in the registry",
        stats.snapshot_misses_total,
    );
    counter(
        out,
        "invalidations",
        "Laboratories forgotten because their row changed",
        stats.invalidations_total,
    );
    gauge(
        out,
        "registry_listening",
        "Whether changes are listened for",
        i64::from(stats.listening),
    );
}

fn connections(out: &mut Registry, state: &AppState, stats: &ResolverStats) {
    let mut by_label = BTreeMap::<String, PoolStatus>::new();
    for tenant in &stats.tenants {
        let sum = by_label.entry(state.metrics.label_of(tenant.tenant)).or_default();
        sum.in_use += tenant.status.in_use;
        sum.idle += tenant.status.idle;
        sum.waiting += tenant.status.waiting;
    }
    let (in_use, idle, waiting) = (
        Family::<TenantLabels, Gauge>::default(),
        Family::<TenantLabels, Gauge>::default(),
        Family::<TenantLabels, Gauge>::default(),
    );
    for (tenant, sum) in by_label {
        let labels = TenantLabels { tenant };
        in_use.get_or_create(&labels).set(number(sum.in_use));
        idle.get_or_create(&labels).set(number(sum.idle));
        waiting.get_or_create(&labels).set(number(sum.waiting));
    }
    out.register(
        "tenant_connections_in_use",
        "A laboratory's connections on loan",
        in_use,
    );
    out.register(
        "tenant_connections_idle",
        "A laboratory's connections not on loan",
        idle,
    );
    out.register(
        "tenant_connections_waiting",
        "Requests that wait for a laboratory's connection",
        waiting,
    );
}

/// Counts the operations that have not ended; every status has its figure, also when it is zero.
async fn live_operations(state: &AppState) -> Answer<Vec<(&'static str, i64)>> {
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
