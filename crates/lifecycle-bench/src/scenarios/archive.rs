//! Archiving a laboratory that goes on working, verifying the archive, and bringing a laboratory back; beside
//! `pg_dump` and `pg_restore` with the same settings.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::{OperationId, Step, TenantId};
use provisioner::{RequestedBy, RestoreAs};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    harness::Harness,
    report::{Outcome, Target, Times, three},
};

/// As the product restores.
const JOBS: &str = "--jobs=2";
/// Entries of the trail that a statement adds at once.
const BATCH: i32 = 50_000;
const MB: i64 = 1_000_000;

/// Two laboratories, a large one and one as most are.
pub(crate) async fn archive(quick: bool) -> anyhow::Result<Vec<Outcome>> {
    let sizes: [(&str, i64, usize); 2] = if quick {
        [("archive_20mb", 20, 1), ("archive_10mb", 10, 1)]
    } else {
        [("archive_700mb", 700, 3), ("archive_10mb", 10, 10)]
    };
    let mut outcomes = Vec::new();
    for (name, mb, rounds) in sizes {
        outcomes.push(one_size(name, mb, rounds).await?);
    }
    Ok(outcomes)
}

async fn one_size(scenario: &'static str, mb: i64, rounds: usize) -> anyhow::Result<Outcome> {
    let harness = Harness::start(0).await?;
    let (tenant, database) = filled(&harness, mb).await?;
    let mut dump = (Times::default(), Times::default());
    let mut verification = (Times::default(), Times::default());
    let mut parallel = Times::default();
    let file = harness.dir().join("bare.dump");
    for _ in 0..rounds {
        let begun = Instant::now();
        bare_dump(&harness, &database, &file).await?;
        dump.1.add(begun.elapsed());
        let (took, verified) = backup(&harness, tenant).await?;
        dump.0.add(took);
        verification.0.add(verified);
        verification.1.add(bare_restore(&harness, &file, None).await?);
        parallel.add(bare_restore(&harness, &file, Some(JOBS)).await?);
    }
    let bytes = std::fs::metadata(&file)?.len();
    harness.stop().await?;
    let dumps = dump.1.p50_ms() / dump.0.p50_ms();
    let verifications = verification.0.p50_ms() / verification.1.p50_ms();
    Ok(Outcome {
        scenario,
        ours: json!({ "dump": dump.0.side(), "verify": verification.0.side() }),
        bare: json!({
            "pg_dump": dump.1.side(),
            "pg_restore": verification.1.side(),
            "pg_restore_parallel": parallel.side(),
        }),
        ratio: dumps,
        about: json!({
            "database_mb": mb,
            "dump_bytes": bytes,
            "dump": "pg_dump in custom format, the product's and the bare one; ratio is bare to ours",
            "verify": "what the snapshot holds and the restored copy with what it holds, beside pg_restore \
                       alone, in one job",
            "verify_to_restore": three(verifications),
            "verify_to_parallel_restore": three(verification.0.p50_ms() / parallel.p50_ms()),
        }),
        targets: vec![
            Target::at_least("of bare pg_dump's speed", dumps, 0.95),
            Target::at_most("times bare pg_restore for the verification", verifications, 1.5),
        ],
    })
}

/// A laboratory of a gigabyte out of its archive, from the request until it is in service.
pub(crate) async fn restore(quick: bool) -> anyhow::Result<Outcome> {
    let (mb, rounds) = if quick { (20, 1) } else { (1_000, 2) };
    let harness = Harness::start(0).await?;
    let (tenant, database) = filled(&harness, mb).await?;
    let file = harness.dir().join("bare.dump");
    bare_dump(&harness, &database, &file).await?;
    backup(&harness, tenant).await?;
    let archive = harness.newest_archive(tenant).await?;
    let (mut ours, mut bare) = (Times::default(), Times::default());
    for at in 0..rounds {
        bare.add(bare_restore(&harness, &file, Some(JOBS)).await?);
        let begun = Instant::now();
        let target = RestoreAs {
            slug: Some(model::Slug::parse(&format!("again-{at}"))?),
            ..RestoreAs::default()
        };
        let by = RequestedBy::terminal("bench");
        let (copy, operation) = harness.provisioner.request_restore(archive, target, by).await?;
        harness.provisioner.run(operation, |_| {}).await?;
        ours.add(begun.elapsed());
        harness.query(copy.id).await?;
    }
    harness.stop().await?;
    let (seconds, ratio) = (ours.p50_ms() / 1e3, ours.p50_ms() / bare.p50_ms());
    let reached = seconds <= 120.0 || ratio <= 1.2;
    Ok(Outcome {
        scenario: "restore_1gb",
        ours: json!({ "seconds": three(seconds), "times": ours.side() }),
        bare: json!({ "seconds": three(bare.p50_ms() / 1e3), "times": bare.side() }),
        ratio,
        about: json!({
            "database_mb": mb,
            "ours": "from the request until the restored laboratory, checked against its manifest, is in \
                     service",
            "bare": "pg_restore --jobs=2 into an empty database, nothing else",
        }),
        targets: vec![Target::new(
            "at most 120 s, or 1.2 times bare pg_restore",
            format!("{seconds:.1} s, {ratio:.2} times"),
            reached,
        )],
    })
}

/// A laboratory whose database has so many megabytes.
async fn filled(harness: &Harness, mb: i64) -> anyhow::Result<(TenantId, String)> {
    let (tenant, operation) = harness.ask("filled").await?;
    harness.provisioner.run(operation, |_| {}).await?;
    let database = harness.namespace.tenant_database(&model::Slug::parse("filled")?);
    let client = harness.client_of(database.as_str()).await?;
    loop {
        let size: i64 = client
            .query_one("SELECT pg_database_size(current_database())", &[])
            .await?
            .get(0);
        if size >= mb * MB {
            break;
        }
        // As the trail of a laboratory looks: ids that do not repeat, words that do.
        client
            .execute(
                "INSERT INTO audit_event (actor, actor_role, action, entity, entity_id, request_id, detail)
                 SELECT gen_random_uuid(), 'technician', 'result.entered', 'result', gen_random_uuid()::text,
                        gen_random_uuid()::text,
                        jsonb_build_object('value', random() * 100, 'unit', 'mmol/L', 'flag', 'normal', 'row', n)
                   FROM generate_series(1, $1::int) AS n",
                &[&BATCH],
            )
            .await?;
    }
    for settle in ["VACUUM ANALYZE", "CHECKPOINT"] {
        client.batch_execute(settle).await?;
    }
    Ok((tenant, database.as_str().to_owned()))
}

/// A backup by the product: how long its `pg_dump` took, and its verification.
async fn backup(harness: &Harness, tenant: TenantId) -> anyhow::Result<(Duration, Duration)> {
    let by = RequestedBy::terminal("bench");
    let operation = harness.provisioner.request_backup(tenant, by).await?;
    harness.provisioner.run(operation, |_| {}).await?;
    let dump = saw(harness, operation, Step::Dump).await?;
    let of = |name: &str| {
        let ms = dump.1[name].as_u64().unwrap_or_default();
        Duration::from_millis(ms)
    };
    let verify = saw(harness, operation, Step::Verify).await?;
    Ok((of("dump_ms"), of("digest_ms") + verify.0))
}

async fn saw(harness: &Harness, operation: OperationId, step: Step) -> anyhow::Result<(Duration, Value)> {
    let rows = harness.steps(operation).await?;
    let row = rows
        .into_iter()
        .find(|row| row.step == step)
        .context("the step ran")?;
    let ended = row.ended_at.context("the step ended")?;
    Ok((
        Duration::try_from(ended.duration_since(row.began_at))?,
        row.saw.unwrap_or_default(),
    ))
}

async fn bare_dump(harness: &Harness, database: &str, file: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(file);
    let mut command = harness.program("pg_dump");
    command
        .args(["--format=custom", "--file"])
        .arg(file)
        .arg(database);
    run(command, harness).await
}

/// Into an empty database, which is dropped again; not counted in the time.
async fn bare_restore(harness: &Harness, file: &Path, jobs: Option<&str>) -> anyhow::Result<Duration> {
    let client = harness.client().await?;
    client
        .batch_execute("CREATE DATABASE bare_copy TEMPLATE template0")
        .await?;
    let mut command = harness.program("pg_restore");
    command
        .args(["--exit-on-error", "--no-owner", "--dbname=bare_copy"])
        .args(jobs)
        .arg(file);
    let begun = Instant::now();
    run(command, harness).await?;
    let took = begun.elapsed();
    client
        .batch_execute("DROP DATABASE bare_copy WITH (FORCE)")
        .await?;
    Ok(took)
}

async fn run(mut command: Command, harness: &Harness) -> anyhow::Result<()> {
    let target = &harness.admin;
    let output = command
        .env("PGHOST", &target.host)
        .env("PGPORT", target.port.to_string())
        .env("PGUSER", &target.user)
        .env("PGPASSWORD", target.password.expose_secret())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "a program of PostgreSQL failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
