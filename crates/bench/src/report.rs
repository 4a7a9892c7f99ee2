//! What is printed: a table for people on stderr, one JSON object for each scenario on stdout.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use serde_json::{Map, Value, json};

use crate::{
    measure::{Tally, jain, median, total},
    sampler::Seen,
};

/// One side in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    pub(crate) qps: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: u64,
    pub(crate) errors: u64,
    pub(crate) errors_by: BTreeMap<String, u64>,
    pub(crate) refused: u64,
    pub(crate) jain: Option<f64>,
    pub(crate) seen: Seen,
    /// Figures of this scenario alone; reported by their medians.
    pub(crate) more: BTreeMap<&'static str, f64>,
}

impl Round {
    /// From the tallies of all clients; fairness is over `shares`, one for each tenant, when there are any.
    pub(crate) fn new(all: &Tally, seconds: f64, shares: &[f64], seen: Seen) -> Self {
        Self {
            qps: total(all.done) / seconds,
            p50_us: total(all.waits_us.value_at_quantile(0.5)),
            p99_us: total(all.waits_us.value_at_quantile(0.99)),
            max_us: all.waits_us.max(),
            errors: all.failed(),
            errors_by: all.errors.clone(),
            refused: all.refused,
            jain: (!shares.is_empty()).then(|| jain(shares)),
            seen,
            more: BTreeMap::new(),
        }
    }
}

/// One side over all rounds: medians, but the longest wait is the longest of all and errors are summed.
pub(crate) fn side(rounds: &[Round], config: Value) -> Value {
    let middle = |figure: fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    let mut errors_by: BTreeMap<String, u64> = BTreeMap::new();
    for round in rounds {
        for (kind, count) in &round.errors_by {
            *errors_by.entry(kind.clone()).or_default() += count;
        }
    }
    let mut side = Map::new();
    side.insert("qps".into(), rounded(middle(|r| r.qps)));
    side.insert("p50_us".into(), rounded(middle(|r| r.p50_us)));
    side.insert("p99_us".into(), rounded(middle(|r| r.p99_us)));
    side.insert("max_us".into(), json!(rounds.iter().map(|r| r.max_us).max()));
    side.insert(
        "errors".into(),
        json!(rounds.iter().map(|r| r.errors).sum::<u64>()),
    );
    if !errors_by.is_empty() {
        side.insert("errors_by".into(), json!(errors_by));
    }
    side.insert(
        "refused_53300".into(),
        json!({
            "seen_by_clients": rounds.iter().map(|r| r.refused).sum::<u64>(),
            "in_server_log": rounds.iter().map(|r| r.seen.refused).sum::<usize>(),
        }),
    );
    let fair: Vec<f64> = rounds.iter().filter_map(|r| r.jain).collect();
    if !fair.is_empty() {
        side.insert("jain".into(), three(median(&fair)));
    }
    side.insert(
        "backends_max".into(),
        json!(rounds.iter().map(|r| r.seen.backends_max).max()),
    );
    let names: BTreeSet<&&str> = rounds.iter().flat_map(|round| round.more.keys()).collect();
    for name in names {
        let figures: Vec<f64> = rounds.iter().filter_map(|r| r.more.get(name).copied()).collect();
        side.insert((*name).to_owned(), three(median(&figures)));
    }
    side.insert("config".into(), config);
    Value::Object(side)
}

/// One target of a scenario, and whether the figures reach it.
pub(crate) struct Target {
    text: String,
    reached: bool,
}

impl Target {
    pub(crate) fn new(what: &str, figure: impl std::fmt::Display, reached: bool) -> Self {
        Self {
            text: format!("{what}: {figure}"),
            reached,
        }
    }
}

impl Target {
    /// The target that our side must always reach: no error of any kind, and no connection that the server
    /// refused because it was full.
    pub(crate) fn no_errors(rounds: &[Round]) -> Self {
        let errors: u64 = rounds.iter().map(|round| round.errors).sum();
        let refused: usize = rounds.iter().map(|round| round.seen.refused).sum();
        Self::new(
            "no errors, and none refused by the server (53300)",
            format!("{errors} and {refused}"),
            errors == 0 && refused == 0 && !rounds.is_empty(),
        )
    }

    /// For a scenario with servers of its own, from their logs.
    pub(crate) fn none_refused(refused: usize) -> Self {
        Self::new("none refused by a server (53300)", refused, refused == 0)
    }

    pub(crate) fn backends(rounds: &[Round], budget: usize) -> Self {
        let most = rounds.iter().map(|round| round.seen.backends_max).max();
        let most = most.unwrap_or(usize::MAX);
        Self::new(
            &format!("at most {budget} backends in any sample"),
            most,
            most <= budget,
        )
    }
}

/// A scenario's outcome.
pub(crate) struct Outcome {
    document: Map<String, Value>,
    targets: Vec<Target>,
}

impl Outcome {
    pub(crate) fn new(scenario: &str, tenants: usize, budget: usize) -> Self {
        let mut document = Map::new();
        document.insert("scenario".into(), json!(scenario));
        document.insert("tenants".into(), json!(tenants));
        document.insert("budget".into(), json!(budget));
        Self {
            document,
            targets: Vec::new(),
        }
    }

    pub(crate) fn put(&mut self, name: &str, value: Value) {
        self.document.insert(name.to_owned(), value);
    }

    pub(crate) fn target(&mut self, target: Target) {
        self.targets.push(target);
    }

    /// Prints both forms, and returns whether every target was reached.
    pub(crate) fn print(mut self) -> anyhow::Result<bool> {
        self.table();
        let reached = self.targets.iter().all(|target| target.reached);
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| json!({ "target": target.text, "reached": target.reached }))
            .collect();
        self.document.insert("targets".into(), json!(targets));
        self.document.insert("reached".into(), json!(reached));
        let mut out = io::stdout().lock();
        writeln!(out, "{}", Value::Object(self.document))?;
        out.flush()?;
        Ok(reached)
    }

    fn table(&self) {
        let word = |name: &str| {
            self.document
                .get(name)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        eprintln!(
            "\n{}, {} tenants, budget {}",
            word("scenario").trim_matches('"'),
            word("tenants"),
            word("budget")
        );
        let sides: Vec<(&String, &Map<String, Value>)> = self
            .document
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_object()?)))
            .filter(|(_, side)| side.contains_key("qps"))
            .collect();
        if !sides.is_empty() {
            eprintln!(
                "  {:<10} {:>9} {:>9} {:>9} {:>10} {:>7} {:>6} {:>6} {:>8}",
                "side", "qps", "p50 us", "p99 us", "max us", "errors", "53300", "jain", "backends"
            );
        }
        for (name, side) in &sides {
            let cell = |name: &str| side.get(name).map_or("-".to_owned(), ToString::to_string);
            let refused = side
                .get("refused_53300")
                .and_then(|refused| refused.get("in_server_log"))
                .map_or("-".to_owned(), ToString::to_string);
            eprintln!(
                "  {name:<10} {:>9} {:>9} {:>9} {:>10} {:>7} {refused:>6} {:>6} {:>8}",
                cell("qps"),
                cell("p50_us"),
                cell("p99_us"),
                cell("max_us"),
                cell("errors"),
                cell("jain"),
                cell("backends_max"),
            );
        }
        for (name, side) in &sides {
            if let Some(config) = side.get("config") {
                eprintln!("  {name} is {config}");
            }
        }
        for (name, value) in &self.document {
            let known = ["scenario", "tenants", "budget"].contains(&name.as_str());
            if !known && !sides.iter().any(|(side, _)| *side == name) {
                eprintln!("  {name}: {value}");
            }
        }
        for target in &self.targets {
            let mark = if target.reached { "reached" } else { "MISSED " };
            eprintln!("  {mark}  {}", target.text);
        }
    }
}

/// For figures in the hundreds and thousands.
pub(crate) fn rounded(figure: f64) -> Value {
    json!((figure * 10.0).round() / 10.0)
}

/// For ratios.
pub(crate) fn three(figure: f64) -> Value {
    json!((figure * 1000.0).round() / 1000.0)
}
