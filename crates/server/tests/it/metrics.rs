//! The router's figures at `/metrics`, and the alerts that are built on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use testkit::Space;

use crate::support::{Call, Tenantd, World, environment, prepare};

/// The series of a scrape, with their labels.
pub(crate) async fn scrape(d: &Tenantd) -> BTreeMap<String, f64> {
    let text = d.get("", "/metrics").await.text;
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| sample(line).unwrap_or_else(|| panic!("{line:?}")))
        .collect()
}

/// The names of figures in the rules' expressions, with the labels that an expression asks for.
fn asked_for(rules: &str) -> BTreeSet<String> {
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expressions
        .flat_map(|expression| {
            expression.match_indices("tenantry_").map(move |(at, _)| {
                let rest = &expression[at..];
                let name = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                match rest[name..]
                    .strip_prefix('{')
                    .and_then(|labels| labels.split_once('}'))
                {
                    Some((labels, _)) => format!("{}{{{labels}}}", &rest[..name]),
                    None => rest[..name].to_owned(),
                }
            })
        })
        .collect()
}

#[tokio::test]
async fn every_figure_that_an_alert_asks_for_is_there() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    world
        .server
        .get(&lab.receptionist, "/api/v1/patients")
        .await
        .expect(200);
    let path = format!("/api/v1/tenants/{}/backup-schedule", lab.id);
    let daily = serde_json::json!({ "everySeconds": 86_400, "keepLast": 7 });
    let set = Call::new("PUT", &path).json(&daily);
    world.server.send(&set, &world.operator).await.expect(200);
    let series = scrape(&world.server).await;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let rules = std::fs::read_to_string(deploy.join("alerts.yml")).unwrap();
    let asked = asked_for(&rules);
    let alerts = rules
        .lines()
        .filter(|line| line.trim().starts_with("- alert:"))
        .count();
    assert!(alerts >= 7 && asked.len() >= 7, "{asked:?}");
    for figure in &asked {
        let found = series
            .keys()
            .any(|one| one == figure || one.split_once('{').is_some_and(|(name, _)| name == figure));
        assert!(found, "{figure} is not among {:?}", series.keys());
    }
    // Nothing is wrong here, so the conditions that need no history must not hold.
    let holds = |name: &str| series[name];
    assert!(holds("tenantry_pools_open") < holds("tenantry_pools_max"));
    assert!(holds("tenantry_registry_up") > 0.5 && holds("tenantry_registry_listening") > 0.5);
    assert!(holds("tenantry_server_breaker_open{server=\"main\"}") < 0.5);
    let prometheus = std::fs::read_to_string(deploy.join("prometheus.yml")).unwrap();
    assert!(prometheus.contains("alerts.yml"));
    world.stop().await;
}

#[tokio::test]
async fn servers_and_laboratories_have_their_figures_and_a_wait_is_counted() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_ROUTER_BUDGET".to_owned(), "7".to_owned());
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
    let series = scrape(d).await;
    let of = |name: &str| {
        *series
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", series.keys()))
    };
    assert!((of("tenantry_server_slots{server=\"main\"}") - 7.0).abs() < 0.5);
    let taken = of("tenantry_server_slots_taken{server=\"main\"}");
    assert!((1.0..=7.0).contains(&taken), "{taken}");
    let connects = of("tenantry_server_connects_total{server=\"main\"}");
    assert!(connects >= 1.0);
    assert!((of("tenantry_tenant_connects_total{tenant=\"acme-lab\"}") - connects).abs() < 0.5);
    assert!(of("tenantry_server_connects_refused_total{server=\"main\"}") < 0.5);
    assert!(of("tenantry_server_fail_fast_total{server=\"main\"}") < 0.5);
    // The first connection of all had to be waited for.
    let waits = of("tenantry_checkout_wait_seconds_count");
    assert!(waits >= 1.0 && of("tenantry_checkout_wait_seconds_sum") > 0.0);
    assert!((of("tenantry_checkout_wait_seconds_bucket{le=\"+Inf\"}") - waits).abs() < 0.5);
    assert!((of("tenantry_tenant_checkout_waits_total{tenant=\"acme-lab\"}") - waits).abs() < 0.5);
    assert!(of("tenantry_tenant_checkout_wait_seconds_total{tenant=\"acme-lab\"}") > 0.0);
    assert!(of("tenantry_tenant_checkout_errors_total{tenant=\"acme-lab\"}") < 0.5);
    for reason in ["least_recently_used", "changed", "refused", "drained"] {
        of(&format!("tenantry_pools_closed_total{{reason=\"{reason}\"}}"));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_budget_that_the_server_cannot_hold_does_not_start() {
    let space = Space::new().await;
    let mut env = environment(&space);
    prepare(&env).await;
    env.insert("TENANTRY_ROUTER_BUDGET".to_owned(), "10000".to_owned());
    let said = Tenantd::fails_to_start(&space, env).await;
    for part in [
        "server main",
        "router.budget = 10000",
        "router.reserve = 16",
        "TENANTRY_ROUTER_BUDGET",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
