//! What all figures are made of.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// The label of figures by status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StatusLabels {
    pub(super) status: &'static str,
}

pub(super) fn gauge(out: &mut Registry, name: &str, help: &str, value: i64) {
    out.register(name, help, ConstGauge::new(value));
}

pub(super) fn counter(out: &mut Registry, name: &str, help: &str, value: u64) {
    out.register(name, help, ConstCounter::new(value));
}

pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
