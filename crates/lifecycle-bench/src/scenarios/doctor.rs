//! Looking through a whole fleet: a healthy one, then one with faults among its laboratories.

use std::{collections::BTreeSet, time::Instant};

use model::{Slug, quote_ident};
use provisioner::Report;
use serde_json::json;
use tokio_postgres::Client;

use super::provision::all_of;
use crate::{
    harness::Harness,
    report::{Outcome, Target, Times, three},
};

/// How many faults of each kind are planted.
const EACH: usize = 10;

pub(crate) async fn measure(quick: bool) -> anyhow::Result<Outcome> {
    let (count, rounds) = if quick { (60, 2) } else { (2_000, 10) };
    let harness = Harness::start(0).await?;
    all_of(&harness, 0..count).await?;
    let (mut ours, mut bare) = (Times::default(), Times::default());
    let mut healthy_named = 0;
    for _ in 0..rounds {
        let begun = Instant::now();
        let report = harness.provisioner.examine(false).await?;
        ours.add(begun.elapsed());
        healthy_named = healthy_named.max(report.findings.len());
        let begun = Instant::now();
        listed(&harness).await?;
        bare.add(begun.elapsed());
    }
    let planted = plant(&harness, count).await?;
    let begun = Instant::now();
    let report = harness.provisioner.examine(false).await?;
    let sick_s = begun.elapsed().as_secs_f64();
    let found = reported(&report);
    let begun = Instant::now();
    let deep = harness.provisioner.examine(true).await?;
    let deep_s = begun.elapsed().as_secs_f64();
    harness.stop().await?;
    let missed = planted.difference(&found).count();
    let beside = found.difference(&planted).count();
    let seconds = ours.quantile_ms(1.0) / 1e3;
    Ok(Outcome {
        scenario: "doctor",
        ratio: ours.p50_ms() / bare.p50_ms(),
        ours: json!({
            "laboratories": count,
            "count": rounds,
            "p50_ms": three(ours.p50_ms()),
            "max_ms": three(ours.quantile_ms(1.0)),
            "with_faults_s": three(sick_s),
            "planted": planted.len(),
            "deep_s": three(deep_s),
            "deep_histories": deep.examined.histories,
        }),
        bare: bare.side(),
        about: json!({
            "ours": "registry, server and archives compared",
            "bare": "a log-in, and the names of all databases and roles with who may connect",
        }),
        targets: vec![
            Target::at_most("seconds, the slowest healthy look", seconds, 5.0),
            Target::at_most("seconds with faults", sick_s, 5.0),
            Target::new("planted faults that were missed", missed, missed == 0),
            Target::new("healthy things named among the faults", beside, beside == 0),
            Target::new(
                "things named in the healthy fleet",
                healthy_named,
                healthy_named == 0,
            ),
        ],
    })
}

fn reported(report: &Report) -> BTreeSet<(&'static str, String)> {
    let reported = report.findings.iter();
    reported
        .map(|finding| (finding.kind.as_str(), finding.subject.clone()))
        .collect()
}

/// What somebody sees who looks with `psql`.
async fn listed(harness: &Harness) -> anyhow::Result<()> {
    let client = harness.client().await?;
    client
        .query("SELECT datname, datacl::text FROM pg_database", &[])
        .await?;
    client
        .query("SELECT rolname, rolcanlogin FROM pg_roles", &[])
        .await?;
    Ok(())
}

/// Orphans, lacks and rights that should not be, spread over the fleet.
async fn plant(harness: &Harness, count: usize) -> anyhow::Result<BTreeSet<(&'static str, String)>> {
    let client = harness.client().await?;
    let run = async |client: &Client, sql: String| client.batch_execute(&sql).await;
    let mut planted = BTreeSet::new();
    let each = EACH.min(count / 6);
    for at in 0..each {
        let of = |fault: usize| -> anyhow::Result<String> {
            let slug = Slug::parse(&format!("many-{}", at * (count / each) + fault))?;
            Ok(harness.namespace.tenant_database(&slug).as_str().to_owned())
        };
        let locked_out = of(0)?;
        run(
            &client,
            format!("ALTER ROLE {} NOLOGIN", quote_ident(&locked_out)),
        )
        .await?;
        planted.insert(("role_cannot_log_in", locked_out));
        let open = of(1)?;
        run(
            &client,
            format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", quote_ident(&open)),
        )
        .await?;
        planted.insert(("open_to_public", open));
        let missing = of(2)?;
        run(&client, format!("DROP DATABASE {}", quote_ident(&missing))).await?;
        planted.insert(("missing_database", missing));
        let unmarked = of(3)?;
        run(
            &client,
            format!("COMMENT ON DATABASE {} IS NULL", quote_ident(&unmarked)),
        )
        .await?;
        planted.insert(("not_ours", unmarked));
        let orphan = harness
            .namespace
            .tenant_database(&Slug::parse(&format!("orphan-{at}"))?);
        let orphan = orphan.as_str().to_owned();
        let quoted = quote_ident(&orphan);
        run(
            &client,
            format!("CREATE DATABASE {quoted} TEMPLATE template0 ALLOW_CONNECTIONS false"),
        )
        .await?;
        run(&client, format!("CREATE ROLE {quoted}")).await?;
        planted.insert(("orphan_database", orphan.clone()));
        planted.insert(("orphan_role", orphan));
    }
    Ok(planted)
}
