//! Figures for Prometheus.
//!
//! Invariant: the number of series is bounded. Routes are the registered patterns, never addresses as sent;
//! the first [`TENANT_SERIES_MAX`] laboratories that are seen after the start have series of their own, the
//! rest share the label `other`, and so do servers beyond [`SERVER_SERIES_MAX`]. First seen and not first by
//! name: a counter that a later laboratory could push into `other` would go backwards.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use actix_web::http::{Method, StatusCode};
use model::TenantId;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::scrape::Totals;

/// The most laboratories with series of their own.
pub const TENANT_SERIES_MAX: usize = 100;
/// The most servers with series of their own.
pub const SERVER_SERIES_MAX: usize = 50;
/// The label of all others.
const OTHER: &str = "other";
/// Upper bounds in seconds: a cached answer, a query, a slow query, a checkout that waited, a deadline.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
    status: &'static str,
}

/// The label of a laboratory's series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TenantLabels {
    pub(crate) tenant: String,
}

/// All figures of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Histogram>,
    tenant_requests: Family<TenantLabels, Histogram>,
    tenant_errors: Family<TenantLabels, Counter>,
    named: RwLock<HashMap<TenantId, Series>>,
    servers: Mutex<BTreeSet<String>>,
    totals: Mutex<Totals>,
}

/// A laboratory's series, kept at hand: to find them by their label at each request would cost more than to
/// add to them.
#[derive(Debug, Clone)]
struct Series {
    label: String,
    requests: Histogram,
    errors: Counter,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tenantry");
        let requests = Family::<RouteLabels, Histogram>::new_with_constructor(histogram);
        let tenant_requests = Family::<TenantLabels, Histogram>::new_with_constructor(histogram);
        let tenant_errors = Family::<TenantLabels, Counter>::default();
        registry.register_with_unit(
            "http_request",
            "Time to answer a request, by route and class of status",
            Unit::Seconds,
            requests.clone(),
        );
        registry.register_with_unit(
            "tenant_request",
            "Time to answer a laboratory's request",
            Unit::Seconds,
            tenant_requests.clone(),
        );
        registry.register(
            "tenant_errors",
            "Answers of 500 and above to a laboratory",
            tenant_errors.clone(),
        );
        Self {
            registry,
            requests,
            tenant_requests,
            tenant_errors,
            named: RwLock::default(),
            servers: Mutex::default(),
            totals: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts one answered request.
    pub fn request(
        &self,
        method: &Method,
        route: String,
        status: StatusCode,
        took: Duration,
        tenant: Option<&(TenantId, String)>,
    ) {
        let labels = RouteLabels {
            method: known_method(method),
            route,
            status: class(status),
        };
        let seconds = took.as_secs_f64();
        self.requests.get_or_create(&labels).observe(seconds);
        if let Some((id, slug)) = tenant {
            let count = |series: &Series| {
                series.requests.observe(seconds);
                if status.is_server_error() {
                    series.errors.inc();
                }
            };
            let known = self.named.read().unwrap_or_else(PoisonError::into_inner);
            match known.get(id) {
                Some(series) => count(series),
                None => {
                    drop(known);
                    count(&self.name(*id, slug));
                }
            }
        }
    }

    /// Gives a laboratory a label of its own at its first request, while there are any left.
    fn name(&self, id: TenantId, slug: &str) -> Series {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = named.get(&id) {
            return series.clone();
        }
        let own = named.len() < TENANT_SERIES_MAX;
        let label = if own { slug } else { OTHER }.to_owned();
        let labels = TenantLabels {
            tenant: label.clone(),
        };
        let series = Series {
            requests: self.tenant_requests.get_or_create_owned(&labels),
            errors: self.tenant_errors.get_or_create_owned(&labels),
            label,
        };
        if own {
            named.insert(id, series.clone());
        }
        series
    }

    /// The label that a laboratory has, for figures that are read at the scrape.
    pub(crate) fn label_of(&self, id: TenantId) -> String {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        named
            .get(&id)
            .map_or_else(|| OTHER.to_owned(), |series| series.label.clone())
    }

    /// A server's label, given away at the first scrape that shows it while there are any left.
    pub(crate) fn server_label(&self, name: &str) -> String {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.contains(name) {
            return name.to_owned();
        }
        if servers.len() >= SERVER_SERIES_MAX {
            return OTHER.to_owned();
        }
        servers.insert(name.to_owned());
        name.to_owned()
    }

    /// The sums that live from one scrape to the next.
    pub(crate) fn with_totals<T>(&self, work: impl FnOnce(&mut Totals) -> T) -> T {
        work(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The figures as text, those read at the scrape (`more`) behind the others.
    ///
    /// # Errors
    /// When a figure cannot be written, which only a fault in this crate can cause.
    pub fn text(&self, more: &Registry) -> Result<String, std::fmt::Error> {
        let (mut text, mut rest) = (String::new(), String::new());
        encode(&mut text, &self.registry)?;
        encode(&mut rest, more)?;
        // Each encoding ends with the line `# EOF`; the document may have one only.
        let body = text.strip_suffix("# EOF\n").unwrap_or(&text);
        Ok(format!("{body}{rest}"))
    }
}

/// A client may send any word as the method.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("OTHER")
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        0..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundred_and_first_laboratory_shares_a_label() {
        let metrics = Metrics::default();
        for number in 0..TENANT_SERIES_MAX + 5 {
            let tenant = (TenantId::generate(), format!("lab-{number:03}"));
            metrics.request(
                &Method::GET,
                "/x".to_owned(),
                StatusCode::OK,
                Duration::from_millis(3),
                Some(&tenant),
            );
        }
        let text = metrics.text(&Registry::default()).unwrap();
        let counted = |label: &str| {
            let line = format!("tenantry_tenant_request_seconds_count{{tenant=\"{label}\"}} ");
            text.lines()
                .find_map(|l| l.strip_prefix(&line))
                .map(str::to_owned)
        };
        assert_eq!(counted("lab-099").as_deref(), Some("1"));
        assert_eq!(counted("lab-100"), None);
        assert_eq!(counted("other").as_deref(), Some("5"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
