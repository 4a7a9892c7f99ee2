//! The router as a whole: pools, waits, what it knows of the registry.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::Counter, family::Family},
    registry::{Registry, Unit},
};
use resolver::{Evictions, ResolverStats, WAIT_BUCKETS_S};

use super::figures::{counter, gauge, number};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

pub(super) fn put(out: &mut Registry, stats: &ResolverStats) {
    pools(out, stats);
    waits(out, stats);
    snapshots(out, stats);
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
    gauge(
        out,
        "pools_waiting",
        "Requests that wait for room for another pool",
        number(stats.waiting_for_room),
    );
    let closed = Family::<ReasonLabels, Counter>::default();
    // Named one by one, so that a reason that is added does not pass unseen.
    let Evictions {
        least_recently_used,
        changed,
        refused,
        drained,
    } = stats.evictions;
    for (reason, count) in [
        ("least_recently_used", least_recently_used),
        ("changed", changed),
        ("refused", refused),
        ("drained", drained),
    ] {
        closed.get_or_create(&ReasonLabels { reason }).inc_by(count);
    }
    out.register(
        "pools_closed",
        "Pools closed: to make room for another (least_recently_used), or because the laboratory's connection data \
         changed, it may not be served, or it was drained",
        closed,
    );
    gauge(
        out,
        "connections",
        "Connections to laboratories' databases",
        number(stats.connections),
    );
    counter(
        out,
        "connections_discarded",
        "Connections closed with work under way",
        stats.discarded_total,
    );
}

fn waits(out: &mut Registry, stats: &ResolverStats) {
    let waits = Waits {
        counts: stats.wait_histogram.to_vec(),
        sum_s: stats.wait_total.as_secs_f64(),
    };
    out.register_with_unit(
        "checkout_wait",
        "How long those checkouts waited that had to wait",
        Unit::Seconds,
        waits,
    );
    counter(
        out,
        "checkout_timeouts",
        "Waits for a connection that ended without",
        stats.checkout_timeouts_total,
    );
}

fn snapshots(out: &mut Registry, stats: &ResolverStats) {
    counter(
        out,
        "snapshot_hits",
        "Look-ups of a laboratory from memory",
        stats.snapshot_hits_total,
    );
    counter(
        out,
        "snapshot_misses",
        "Look-ups of a laboratory that was not in memory",
        stats.snapshot_misses_total,
    );
    counter(
        out,
        "snapshot_loads",
        "Reads of a laboratory in the registry",
        stats.snapshot_loads_total,
    );
    counter(
        out,
        "snapshot_remembered",
        "Look-ups answered from memory while the registry was away",
        stats.snapshot_remembered_total,
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
    gauge(
        out,
        "router_registered",
        "Whether operations know that this process routes, and wait for it",
        i64::from(stats.registered),
    );
    gauge(
        out,
        "routers",
        "Routers that were registered and alive when this one's registration was renewed last",
        number(stats.budgets.routers),
    );
    gauge(
        out,
        "routers_budget",
        "Connections to one server that all of them may open together",
        number(stats.budgets.connections),
    );
}

/// The resolver counts waits in buckets of its own; the library's histogram takes single observations only.
struct Waits {
    /// In the order of [`WAIT_BUCKETS_S`], and one more for all that took longer.
    counts: Vec<u64>,
    sum_s: f64,
}

impl EncodeMetric for Waits {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The library adds the buckets up.
        let bounds = WAIT_BUCKETS_S.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.counts.iter().copied()).collect();
        let count = self.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum_s, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waits({:?}, {} s)", self.counts, self.sum_s)
    }
}
