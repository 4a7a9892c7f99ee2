//! Each PostgreSQL server: how much of its budget is taken, who waits, and whether it answers.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use resolver::ServerStats;

use super::figures::number;
use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: String,
}

type ReadGauge = fn(&ServerStats) -> usize;
type ReadCounter = fn(&ServerStats) -> u64;

const GAUGES: &[(&str, &str, ReadGauge)] = &[
    ("server_slots", "Most connections of this process", |s| s.budget),
    (
        "server_slots_taken",
        "Connections that exist, those that are opening or closing included",
        |s| s.slots_taken,
    ),
    (
        "server_connections_max",
        "Connections that the server has for others than superusers; 0 before the first connection to it",
        |s| {
            s.capacity.map_or(0, |capacity| {
                capacity.max_connections.saturating_sub(capacity.reserved)
            })
        },
    ),
    (
        "server_overbooked",
        "Whether the budgets of all routers and the reserve exceed what the server has",
        |s| usize::from(s.overbooked),
    ),
    ("server_connections_opening", "Connects under way", |s| {
        s.connecting
    }),
    ("server_connections_closing", "Connections that are ending", |s| {
        s.closing
    }),
    (
        "server_connections_predecessors",
        "Connections that an earlier process of this instance still has",
        |s| s.predecessors,
    ),
    (
        "server_tenants_waiting",
        "Laboratories that wait for a connection",
        |s| s.tenants_waiting,
    ),
    (
        "server_breaker_open",
        "Whether the server is taken to be down, and asked by one probe at a time",
        |s| usize::from(s.breaker_open),
    ),
];

const COUNTERS: &[(&str, &str, ReadCounter)] = &[
    ("server_connects", "Connections made", |s| s.connects_total),
    (
        "server_connect_errors",
        "Connections that could not be made",
        |s| s.connect_errors_total,
    ),
    (
        "server_connects_refused",
        "Connections for which the server had no room (SQLSTATE 53300)",
        |s| s.connects_refused_total,
    ),
    (
        "server_tenures_ended",
        "Connections closed because their tenure was over and another laboratory waited",
        |s| s.yields_total,
    ),
    (
        "server_idle_taken",
        "Idle connections closed because another laboratory waited",
        |s| s.taken_idle_total,
    ),
    (
        "server_fail_fast",
        "Requests refused at once because the server was down",
        |s| s.fail_fast_total,
    ),
];

pub(super) fn put(out: &mut Registry, metrics: &Metrics, servers: &[ServerStats]) {
    let mut by_label = BTreeMap::<String, Vec<&ServerStats>>::new();
    for server in servers {
        let label = metrics.server_label(server.server.as_str());
        by_label.entry(label).or_default().push(server);
    }
    for (name, help, read) in GAUGES {
        let family = Family::<ServerLabels, Gauge>::default();
        for (server, of) in &by_label {
            let sum = of.iter().map(|stats| read(stats)).sum();
            family.get_or_create(&labels(server)).set(number(sum));
        }
        out.register(*name, format!("{help}, by server"), family);
    }
    for (name, help, read) in COUNTERS {
        let family = Family::<ServerLabels, Counter>::default();
        for (server, of) in &by_label {
            let sum = of.iter().map(|stats| read(stats)).sum();
            family.get_or_create(&labels(server)).inc_by(sum);
        }
        out.register(*name, format!("{help}, by server"), family);
    }
}

fn labels(server: &str) -> ServerLabels {
    ServerLabels {
        server: server.to_owned(),
    }
}
