//! Each laboratory's connections and waits.

use std::collections::BTreeMap;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use resolver::{PoolStatus, TenantPoolStats};

use super::{figures::number, totals::Counts};
use crate::metrics::{Metrics, TenantLabels};

pub(super) fn put(out: &mut Registry, metrics: &Metrics, tenants: &[TenantPoolStats]) {
    connections(out, metrics, tenants);
    let labelled = tenants
        .iter()
        .map(|stats| (stats.tenant, metrics.label_of(stats.tenant), stats.into()));
    metrics.with_totals(|totals| counts(out, totals.update(labelled)));
}

fn connections(out: &mut Registry, metrics: &Metrics, tenants: &[TenantPoolStats]) {
    let mut by_label = BTreeMap::<String, PoolStatus>::new();
    for tenant in tenants {
        let sum = by_label.entry(metrics.label_of(tenant.tenant)).or_default();
        sum.in_use += tenant.status.in_use;
        sum.idle += tenant.status.idle;
        sum.waiting += tenant.status.waiting;
    }
    type Read = fn(&PoolStatus) -> usize;
    let gauges: [(&str, &str, Read); 3] = [
        (
            "tenant_connections_in_use",
            "A laboratory's connections on loan",
            |sum| sum.in_use,
        ),
        (
            "tenant_connections_idle",
            "A laboratory's connections not on loan",
            |sum| sum.idle,
        ),
        (
            "tenant_connections_waiting",
            "Requests that wait for a laboratory's connection",
            |sum| sum.waiting,
        ),
    ];
    for (name, help, read) in gauges {
        let family = Family::<TenantLabels, Gauge>::default();
        for (tenant, sum) in &by_label {
            family.get_or_create(&labels(tenant)).set(number(read(sum)));
        }
        out.register(name, help, family);
    }
}

fn counts(out: &mut Registry, by_label: &BTreeMap<String, Counts>) {
    type Read = fn(&Counts) -> u64;
    let counters: [(&str, &str, Read); 4] = [
        (
            "tenant_checkout_waits",
            "Requests that had to wait for a laboratory's connection",
            |counts| counts.waits,
        ),
        ("tenant_connects", "Connections made for a laboratory", |counts| {
            counts.connects
        }),
        (
            "tenant_connections_evicted",
            "A laboratory's idle connections that were closed for another",
            |counts| counts.evicted,
        ),
        (
            "tenant_checkout_errors",
            "Connects for a laboratory that failed, and waits that ended without a connection",
            |counts| counts.errors,
        ),
    ];
    for (name, help, read) in counters {
        let family = Family::<TenantLabels, Counter>::default();
        for (tenant, counts) in by_label {
            family.get_or_create(&labels(tenant)).inc_by(read(counts));
        }
        out.register(name, help, family);
    }
    let waited = Family::<TenantLabels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
    for (tenant, counts) in by_label {
        waited.get_or_create(&labels(tenant)).inc_by(counts.waited_s);
    }
    out.register_with_unit(
        "tenant_checkout_wait",
        "How long requests waited for a laboratory's connection, all together",
        Unit::Seconds,
        waited,
    );
}

fn labels(tenant: &str) -> TenantLabels {
    TenantLabels {
        tenant: tenant.to_owned(),
    }
}
