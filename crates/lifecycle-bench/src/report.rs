//! What is printed: a table for people on stderr, one JSON object for each scenario on stdout.

use std::time::Duration;

use serde_json::{Value, json};

/// The times of one side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, one: Duration) {
        self.0.push(one);
    }

    /// The time below which this share of all lies, in milliseconds: the nearest rank.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.clamp(1, sorted.len().max(1)) - 1)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    pub(crate) fn p50_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }

    /// As the JSON of one side.
    pub(crate) fn side(&self) -> Value {
        json!({
            "count": self.0.len(),
            "p50_ms": three(self.p50_ms()),
            "p99_ms": three(self.quantile_ms(0.99)),
            "max_ms": three(self.quantile_ms(1.0)),
        })
    }
}

/// To three places.
pub(crate) fn three(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// One condition, and whether the figures meet it.
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

    /// `figure` is at most `most`.
    pub(crate) fn at_most(what: &str, figure: f64, most: f64) -> Self {
        Self::new(what, format!("{figure:.2} (at most {most})"), figure <= most)
    }

    /// `figure` is at least `least`.
    pub(crate) fn at_least(what: &str, figure: f64, least: f64) -> Self {
        Self::new(what, format!("{figure:.2} (at least {least})"), figure >= least)
    }
}

/// What a scenario came to.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) ours: Value,
    pub(crate) bare: Value,
    pub(crate) ratio: f64,
    /// What the two sides are.
    pub(crate) about: Value,
    pub(crate) targets: Vec<Target>,
}

impl Outcome {
    /// Prints it; whether every target was reached.
    pub(crate) fn print(&self) -> bool {
        eprintln!("\n{}", self.scenario);
        for (name, side) in [("ours", &self.ours), ("bare", &self.bare)] {
            let figures: Vec<String> = side
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            eprintln!("  {name:<6} {}", figures.join("  "));
        }
        eprintln!("  ratio  {:.3}", self.ratio);
        for target in &self.targets {
            let word = if target.reached { "reached" } else { "MISSED " };
            eprintln!("  {word}  {}", target.text);
        }
        let reached = self.targets.iter().all(|target| target.reached);
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| json!({ "target": target.text, "reached": target.reached }))
            .collect();
        println!(
            "{}",
            json!({
                "scenario": self.scenario,
                "ours": self.ours,
                "bare": self.bare,
                "ratio": three(self.ratio),
                "about": self.about,
                "targets": targets,
                "reached": reached,
            })
        );
        reached
    }
}
