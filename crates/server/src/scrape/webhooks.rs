//! Figures of the webhooks: what this process has sent, and what waits in the registry.

use outbox::OutboxStats;
use prometheus_client::{
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};

use super::figures::{StatusLabels, counter, gauge};
use crate::{problem::ApiResult, state::AppState};

/// What this process has sent.
pub(super) fn put(out: &mut Registry, stats: &OutboxStats) {
    let attempts = Family::<StatusLabels, Counter>::default();
    for (status, count) in [("delivered", stats.delivered), ("failed", stats.failed)] {
        attempts.get_or_create(&StatusLabels { status }).inc_by(count);
    }
    out.register(
        "webhook_attempts",
        "Requests to webhooks, by what came of them",
        attempts,
    );
    out.register(
        "webhook_attempts_seconds",
        "Time in requests to webhooks, all together",
        ConstCounter::new(stats.took.as_secs_f64()),
    );
    counter(
        out,
        "webhook_given_up",
        "Deliveries that were given up",
        stats.given_up,
    );
    counter(
        out,
        "webhook_switched_off",
        "Webhooks that were switched off",
        stats.switched_off,
    );
}

/// How many deliveries wait, and for how many seconds the oldest has.
pub(super) async fn queued(state: &AppState) -> ApiResult<(u64, f64)> {
    let client = state.registry_client().await?;
    Ok(registry::deliveries_queued(&client).await?)
}

pub(super) fn put_queued(out: &mut Registry, (count, oldest_s): (u64, f64)) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    gauge(
        out,
        "webhook_deliveries_waiting",
        "Deliveries of the whole fleet that wait",
        count,
    );
    out.register(
        "webhook_oldest_waiting_seconds",
        "How long the oldest of them has waited",
        ConstGauge::new(oldest_s),
    );
}
