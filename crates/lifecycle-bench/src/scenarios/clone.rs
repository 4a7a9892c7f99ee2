//! The ways in which a server copies the template, in turns on one server: with nobody else there, and while
//! somebody writes. A writer's commit is measured too, since a copy that is quick by itself may hold up
//! everybody else.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use embedded::{Cluster, ThrowawayOptions};
use migrator::CloneStrategy;
use model::{DbName, Namespace};
use pg::ConnectTarget;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::{
    harness::{CONNECT_LIMIT, SAFE},
    report::{Outcome, Target, Times, three},
};

/// How long the writer pauses between two commits: some hundred of them a second.
const PAUSE: Duration = Duration::from_millis(2);
/// The first version that can have the file system share the blocks of the two copies.
const SHARES_SINCE: u32 = 18;
/// How much slower than the best the chosen way may look, for noise.
const NOISE: f64 = 1.1;

/// On each server that is named, or on the newest that is installed.
pub(crate) async fn clone(quick: bool, pg_bins: &[PathBuf]) -> anyhow::Result<Vec<Outcome>> {
    if pg_bins.is_empty() {
        return Ok(vec![on(None, quick).await?]);
    }
    let mut outcomes = Vec::new();
    for bin in pg_bins {
        outcomes.push(on(Some(bin.clone()), quick).await?);
    }
    Ok(outcomes)
}

/// One way, with its times in quiet and beside a writer.
struct Way {
    name: &'static str,
    set: &'static str,
    word: &'static str,
    quiet: Times,
    busy: Times,
    commits: Times,
    refused: Option<String>,
}

async fn on(bin: Option<PathBuf>, quick: bool) -> anyhow::Result<Outcome> {
    let rounds = if quick { 3 } else { 12 };
    let options = ThrowawayOptions {
        bin,
        parameters: SAFE
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..ThrowawayOptions::default()
    };
    let cluster = Cluster::start_throwaway(options).await?;
    let (admin, major) = (cluster.target().clone(), cluster.bin().major());
    let template = migrator::template_ensure(&admin, &Namespace::default()).await?;
    let client = connect(&admin).await?;
    let mut ways: Vec<Way> = CloneStrategy::ALL
        .map(|way| way_of(way.word(), "", way.word()))
        .into();
    if major >= SHARES_SINCE {
        ways.push(way_of(
            "shared",
            "SET file_copy_method = clone",
            CloneStrategy::FileCopy.word(),
        ));
    }
    for _ in 0..rounds {
        for way in &mut ways {
            measure(&client, &template, way, |way| &mut way.quiet).await?;
        }
    }
    connect(&admin)
        .await?
        .batch_execute("CREATE TABLE written (n bigint, words text)")
        .await?;
    for _ in 0..rounds {
        for way in &mut ways {
            let (stop, stopped) = watch::channel(false);
            let writing = tokio::spawn(write(connect(&admin).await?, stopped));
            measure(&client, &template, way, |way| &mut way.busy).await?;
            let _ = stop.send(true);
            for commit in writing.await?? {
                way.commits.add(commit);
            }
        }
    }
    drop(client);
    cluster.stop().await?;
    Ok(outcome(major, &ways))
}

fn way_of(name: &'static str, set: &'static str, word: &'static str) -> Way {
    Way {
        name,
        set,
        word,
        quiet: Times::default(),
        busy: Times::default(),
        commits: Times::default(),
        refused: None,
    }
}

/// Copies the template once, and drops the copy; only the copy is counted.
async fn measure(
    client: &Client,
    template: &DbName,
    way: &mut Way,
    times: impl Fn(&mut Way) -> &mut Times,
) -> anyhow::Result<()> {
    if way.refused.is_some() {
        return Ok(());
    }
    client.batch_execute("RESET ALL").await?;
    let sql = format!(
        "CREATE DATABASE measured TEMPLATE {template} STRATEGY {} ALLOW_CONNECTIONS false",
        way.word
    );
    let begun = Instant::now();
    let copied = match client.batch_execute(way.set).await {
        Ok(()) => client.batch_execute(&sql).await,
        refused => refused,
    };
    match copied {
        Ok(()) => {
            times(way).add(begun.elapsed());
            client.batch_execute("DROP DATABASE measured").await?;
        }
        // Whether blocks can be shared is the file system's to say.
        Err(error) if !way.set.is_empty() => way.refused = Some(pg::describe(&error)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Small commits until it is told to stop; how long each took.
async fn write(client: Client, stopped: watch::Receiver<bool>) -> anyhow::Result<Vec<Duration>> {
    let mut commits = Vec::new();
    while !*stopped.borrow() {
        let begun = Instant::now();
        client
            .batch_execute(
                "INSERT INTO written SELECT n, repeat('word ', 20) FROM generate_series(1, 20) AS n",
            )
            .await?;
        commits.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(commits)
}

async fn connect(admin: &ConnectTarget) -> anyhow::Result<Client> {
    Ok(pg::connect(admin, "bench", CONNECT_LIMIT).await?)
}

fn outcome(major: u32, ways: &[Way]) -> Outcome {
    let chosen = CloneStrategy::for_major(major).word();
    let (mut ours, mut bare) = (Map::new(), Map::new());
    for way in ways {
        let side = match &way.refused {
            Some(why) => json!({ "refused": why }),
            None => {
                json!({ "quiet": way.quiet.side(), "busy": way.busy.side(), "writer": way.commits.side() })
            }
        };
        let side_of = if way.name == chosen { &mut ours } else { &mut bare };
        side_of.insert(way.name.to_owned(), side);
    }
    // Sharing blocks is a setting of the server's owner and not ours to rely on.
    let times = |name: &str| ways.iter().find(|way| way.name == name);
    let p50 = |of: fn(&Way) -> &Times, name: &str| times(name).map_or(f64::NAN, |way| of(way).p50_ms());
    let others = || {
        CloneStrategy::ALL
            .iter()
            .map(|way| way.word())
            .filter(|&word| word != chosen)
    };
    let ratio = |of: fn(&Way) -> &Times| {
        let best = others().map(|word| p50(of, word)).fold(f64::INFINITY, f64::min);
        p50(of, chosen) / best
    };
    let (quiet, busy) = (ratio(|way| &way.quiet), ratio(|way| &way.busy));
    Outcome {
        scenario: "clone",
        ours: Value::Object(ours),
        bare: Value::Object(bare),
        ratio: busy,
        about: json!({
            "major": major,
            "ours": "CREATE DATABASE … TEMPLATE in the way that is chosen for this version",
            "bare": "the others; shared is file_copy with file_copy_method = clone",
            "quiet": three(quiet),
            "busy": three(busy),
            "writer": "commits of twenty rows while the template is copied",
        }),
        targets: vec![
            Target::at_most("times the other way's time in quiet", quiet, NOISE),
            Target::at_most("times the other way's time beside a writer", busy, NOISE),
        ],
    }
}
