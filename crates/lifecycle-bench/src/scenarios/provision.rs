//! Making laboratories: with a database that is kept ready, without one, and many at once.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use model::DbName;
use provisioner::Progress;
use serde_json::json;

use crate::{
    harness::Harness,
    report::{Outcome, Target, Times, three},
};

/// How many are made at once, as the product's worker does it; the server gains nothing from more.
const PARALLEL: usize = 4;
/// How many each side makes before it is the other's turn.
const TURN: usize = 25;

/// From the request to the first answered query, with a database kept ready; beside what a script does:
/// `createdb` and the migrations.
pub(crate) async fn warm(quick: bool) -> anyhow::Result<Outcome> {
    let rounds = if quick { 10 } else { 100 };
    let harness = Harness::start(4).await?;
    let (mut ours, mut bare) = (Times::default(), Times::default());
    // Where the time goes: asking, each step, and the rest of running it, and the query.
    let parts = Mutex::new(BTreeMap::<String, Times>::new());
    let part = |name: &str, took: Duration| {
        let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.entry(name.to_owned()).or_default().add(took);
    };
    // The first one opens the connections that a running service has.
    for at in 0..=rounds {
        // In service a worker fills the shelf between two requests.
        harness.provisioner.stock().await?;
        let begun = Instant::now();
        let (tenant, operation) = harness.ask(&format!("warm-{at}")).await?;
        let asked = begun.elapsed();
        let observe = |progress| {
            if let (Progress::StepDone { step, took, .. }, 1..) = (progress, at) {
                part(step.as_str(), took);
            }
        };
        harness.provisioner.run(operation, observe).await?;
        let ran = begun.elapsed();
        harness.query(tenant).await?;
        let took = begun.elapsed();
        if at > 0 {
            ours.add(took);
            part("asked", asked);
            part("run", ran - asked);
            part("query", took - ran);
        }
        // So that the router has a slot free for the next one, whatever its budget.
        harness.let_go(tenant).await?;
        if at % 5 == 1 {
            bare.add(created_and_migrated(&harness, at).await?);
        }
    }
    harness.stop().await?;
    let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let parts: BTreeMap<_, _> = (parts.iter().map(|(name, times)| (name, three(times.p50_ms())))).collect();
    let (p50, p99) = (ours.p50_ms(), ours.quantile_ms(0.99));
    Ok(Outcome {
        scenario: "provision_warm",
        ours: ours.side(),
        bare: bare.side(),
        ratio: p50 / bare.p50_ms(),
        about: json!({
            "ours": "from the request to the first answered query",
            "p50_ms_of": parts,
            "bare": "CREATE DATABASE and the migrations, nothing else",
        }),
        targets: vec![
            Target::at_most("p50 in ms", p50, 10.0),
            Target::at_most("p99 in ms", p99, 50.0),
        ],
    })
}

async fn created_and_migrated(harness: &Harness, at: usize) -> anyhow::Result<Duration> {
    let name = format!("bare_{at}");
    let begun = Instant::now();
    let client = harness.client().await?;
    client
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await?;
    migrator::migrate_database(
        &harness.admin.with_database(&name),
        &harness.namespace.shared_group(),
    )
    .await?;
    let took = begun.elapsed();
    client.batch_execute(&format!("DROP DATABASE {name}")).await?;
    Ok(took)
}

/// From the request to `active` without a database kept ready, beside the bare copy of the template.
pub(crate) async fn cold(quick: bool) -> anyhow::Result<Outcome> {
    let rounds = if quick { 5 } else { 60 };
    let harness = Harness::start(0).await?;
    let template = template(&harness).await?;
    let (mut ours, mut bare) = (Times::default(), Times::default());
    let client = harness.client().await?;
    for at in 0..=rounds {
        let begun = Instant::now();
        let (_, operation) = harness.ask(&format!("cold-{at}")).await?;
        harness.provisioner.run(operation, |_| {}).await?;
        let took = begun.elapsed();
        let begun = Instant::now();
        copy(&client, &template, &format!("bare_{at}")).await?;
        if at > 0 {
            ours.add(took);
            bare.add(begun.elapsed());
        }
    }
    harness.stop().await?;
    let ratio = ours.p50_ms() / bare.p50_ms();
    Ok(Outcome {
        scenario: "provision_cold",
        ours: ours.side(),
        bare: bare.side(),
        ratio,
        about: json!({
            "ours": "from the request to active",
            "bare": "CREATE DATABASE … TEMPLATE, the same template and strategy, nothing else",
        }),
        targets: vec![Target::at_most("times the bare copy, p50", ratio, 1.5)],
    })
}

/// Hundreds at once, beside as many bare copies.
pub(crate) async fn many(quick: bool) -> anyhow::Result<Outcome> {
    let count = if quick { 20 } else { 500 };
    let harness = Harness::start(0).await?;
    let template = template(&harness).await?;
    let (mut ours_s, mut bare_s) = (0.0, 0.0);
    // In turns, since the server slows down with the number of its databases.
    for (turn, from) in (0..count).step_by(TURN).enumerate() {
        let part = from..count.min(from + TURN);
        for is_ours in [turn % 2 == 0, turn % 2 != 0] {
            if is_ours {
                ours_s += all_of(&harness, part.clone()).await?.as_secs_f64();
            } else {
                bare_s += copies(&harness, &template, part.clone()).await?.as_secs_f64();
            }
        }
    }
    harness.stop().await?;
    let (ours, bare) = (count as f64 / ours_s, count as f64 / bare_s);
    let ratio = ours / bare;
    Ok(Outcome {
        scenario: "provision_many",
        ours: json!({ "count": count, "seconds": three(ours_s), "per_s": three(ours) }),
        bare: json!({ "count": count, "seconds": three(bare_s), "per_s": three(bare) }),
        ratio,
        about: json!({
            "ours": format!("from the request to active, {PARALLEL} at once, no spares"),
            "bare": format!("CREATE DATABASE … TEMPLATE, {PARALLEL} at once"),
        }),
        targets: vec![Target::at_least("of the bare rate", ratio, 0.8)],
    })
}

pub(super) async fn all_of(harness: &Harness, which: Range<usize>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    stream::iter(which)
        .map(Ok::<_, anyhow::Error>)
        .try_for_each_concurrent(PARALLEL, async |at| {
            let (_, operation) = harness.ask(&format!("many-{at}")).await?;
            harness.provisioner.run(operation, |_| {}).await?;
            Ok(())
        })
        .await?;
    Ok(begun.elapsed())
}

async fn copies(harness: &Harness, template: &DbName, which: Range<usize>) -> anyhow::Result<Duration> {
    let mut clients = Vec::new();
    for _ in 0..PARALLEL {
        clients.push(harness.client().await?);
    }
    let begun = Instant::now();
    let each = clients.iter().enumerate().map(async |(lane, client)| {
        for at in which.clone().skip(lane).step_by(PARALLEL) {
            copy(client, template, &format!("bare_{at}")).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    futures_util::future::try_join_all(each).await?;
    Ok(begun.elapsed())
}

async fn template(harness: &Harness) -> anyhow::Result<DbName> {
    Ok(migrator::template_ensure(&harness.admin, &harness.namespace).await?)
}

/// The same statement as the product's.
async fn copy(client: &tokio_postgres::Client, template: &DbName, name: &str) -> anyhow::Result<()> {
    let name = DbName::from_catalog(name)?;
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log ALLOW_CONNECTIONS false");
    Ok(client.batch_execute(&sql).await?)
}
