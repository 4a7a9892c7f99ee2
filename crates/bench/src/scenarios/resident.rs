//! What a laboratory costs without requests: 100,000 known laboratories, 10,000 of them with a pool, and no
//! connection.
//!
//! They are rows of the registry whose server is a PgBouncer that maps every database name to one real
//! database, so that the program can open ten thousand pools and close their connections again. Memory is the
//! process's resident memory: the difference before and after, divided by their number. This scenario runs
//! first, while there is no freed memory to be used again.

use std::{fs, time::Duration};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use identity::SealContext;
use model::{ServerName, TenantId};
use resolver::{Resolver, ResolverConfig};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Pace;
use crate::{
    fleet::{Fleet, Host, POOL_ROLE},
    measure::{count, total},
    peers::{Bouncer, Ours, ours_config},
    report::{Outcome, Target, rounded},
    tenants::VERSION,
};

const BUDGET: usize = 64;
/// None is dropped for want of room.
const SNAPSHOTS_MAX: u64 = 200_000;
const DORMANT_BYTES_MAX: f64 = 1_024.0;
const POOL_BYTES_MAX: f64 = 3.0 * 1_024.0;
/// Of one processor.
const IDLE_CPU_MAX: f64 = 0.001;
const REGISTER_AT_ONCE: usize = 5_000;
const PARALLEL: usize = 32;
const EMPTY_LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(fleet: &Fleet, pace: Pace) -> anyhow::Result<bool> {
    let (registered, pools) = if pace.quick {
        (20_000, 1_000)
    } else {
        (100_000, 10_000)
    };
    let host = fleet.host("resident", BUDGET, 16, 1).await?;
    let bouncer = front(&host).await?;
    let server = ServerName::parse("dormant")?;
    fleet.register(&server, "127.0.0.1", bouncer.port).await?;
    let tenants = register(fleet, &server, registered).await?;
    let resolver = Ours::start(ResolverConfig {
        pools_max: pools + 1,
        snapshots_max: SNAPSHOTS_MAX,
        // Nothing must expire during the count.
        snapshot_ttl: Duration::from_secs(3_600),
        idle_timeout: Duration::from_secs(1),
        // The ten thousand connects are only preparation.
        connects_max: PARALLEL,
        ..ours_config(fleet, BUDGET)
    })
    .await?;
    // The first few cause one-time costs (buffers, connections).
    know(&resolver, &tenants[..registered / 100]).await?;
    let before = resident_bytes()?;
    know(&resolver, &tenants[registered / 100..]).await?;
    let known = resident_bytes()?;
    let first = pools / 10;
    open(&resolver, &tenants[..first]).await?;
    wait_until_idle(&resolver).await?;
    let few = resident_bytes()?;
    let begun = Instant::now();
    open(&resolver, &tenants[first..pools]).await?;
    let opened = begun.elapsed();
    wait_until_idle(&resolver).await?;
    let open = resident_bytes()?;
    let pools_open = resolver.stats().pools_open;
    let cpu = idle_cpu(if pace.quick { 2 } else { 10 }).await?;

    let dormant = (known - before) / count(registered - registered / 100);
    let pool = (open - few) / count(pools - first);
    let mut outcome = Outcome::new("resident", registered, BUDGET);
    outcome.put(
        "ours",
        json!({
            "dormant_bytes": rounded(dormant),
            "pools": pools_open,
            "empty_pool_bytes": rounded(pool),
            "pools_opened_per_second": rounded(count(pools - first) / opened.as_secs_f64()),
            "idle_cpu": cpu,
            "resident_mb": rounded(open / 1e6),
        }),
    );
    outcome.target(Target::new(
        &format!("at most {DORMANT_BYTES_MAX} bytes a dormant tenant"),
        dormant.round(),
        dormant <= DORMANT_BYTES_MAX,
    ));
    outcome.target(Target::new(
        &format!("at most {POOL_BYTES_MAX} bytes an empty pool, {pools} of them open"),
        format!("{}, {pools_open} open", pool.round()),
        pool <= POOL_BYTES_MAX && pools_open == pools,
    ));
    outcome.target(Target::new(
        &format!("idle, at most {}% of a processor", IDLE_CPU_MAX * 100.0),
        format!("{:.3}%", cpu * 100.0),
        cpu <= IDLE_CPU_MAX,
    ));
    let reached = outcome.print()?;
    let left = resolver.close(Duration::from_secs(60)).await;
    left.map_err(|left| anyhow::anyhow!("{left} connections are left"))?;
    drop(bouncer);
    host.stop().await?;
    Ok(reached)
}

/// One real database behind every name.
async fn front(host: &Host) -> anyhow::Result<Bouncer> {
    let tenant = host.tenants.first().context("the host has one laboratory")?;
    let databases = format!(
        "* = host={} port={} dbname={}",
        host.admin.host, host.admin.port, tenant.name
    );
    let settings = [
        ("pool_mode", "session".to_owned()),
        ("auth_type", "trust".to_owned()),
        ("default_pool_size", "10".to_owned()),
        ("max_user_connections", BUDGET.to_string()),
        ("max_client_conn", "1000".to_owned()),
        (
            "ignore_startup_parameters",
            "options,extra_float_digits".to_owned(),
        ),
        ("server_login_retry", "1".to_owned()),
    ];
    let users = format!("\"{POOL_ROLE}\" \"{}\"\n", host.pool_password.expose_secret());
    Bouncer::start(host, &databases, &settings, &users).await
}

async fn register(fleet: &Fleet, server: &ServerName, number: usize) -> anyhow::Result<Vec<TenantId>> {
    let password = identity::generate_password();
    let tenants: Vec<TenantId> = (0..number).map(|_| TenantId::generate()).collect();
    let registry = fleet.registry.client().await?;
    for (chunk, some) in tenants.chunks(REGISTER_AT_ONCE).enumerate() {
        let ids: Vec<uuid::Uuid> = some.iter().map(|tenant| tenant.as_uuid()).collect();
        let secrets: Vec<Vec<u8>> = some
            .iter()
            .map(|tenant| fleet.sealer.seal(&SealContext::TenantRole(*tenant), &password))
            .collect();
        registry
            .execute(
                "INSERT INTO tenants (id, slug, name, time_zone, server, db_name, role_name, role_secret,
                                      status, db_version, activated_at)
                 SELECT id, ('dormant-' || $6::bigint + n)::citext, 'Dormant laboratory ' || $6::bigint + n,
                        'Europe/Berlin', $3, 'dormant_' || $6::bigint + n, $4, secret, 'active', $5, now()
                 FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS new (id, secret, n)",
                &[
                    &ids,
                    &secrets,
                    &server.as_str(),
                    &POOL_ROLE,
                    &i32::try_from(VERSION)?,
                    &i64::try_from(chunk * REGISTER_AT_ONCE)?,
                ],
            )
            .await
            .context("cannot register the dormant laboratories")?;
    }
    Ok(tenants)
}

async fn know(resolver: &Resolver, tenants: &[TenantId]) -> anyhow::Result<()> {
    stream::iter(tenants)
        .map(|tenant| resolver.snapshot(*tenant))
        .buffer_unordered(PARALLEL)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    Ok(())
}

async fn open(resolver: &Resolver, tenants: &[TenantId]) -> anyhow::Result<()> {
    stream::iter(tenants)
        .map(|tenant| async { resolver.checkout(*tenant).await.map(drop) })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    Ok(())
}

async fn wait_until_idle(resolver: &Resolver) -> anyhow::Result<()> {
    let begun = Instant::now();
    while resolver.stats().connections > 0 {
        if begun.elapsed() > EMPTY_LIMIT {
            bail!(
                "{} idle connections are still open after {EMPTY_LIMIT:?}",
                resolver.stats().connections
            );
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What the process has in memory (`VmRSS`).
fn resident_bytes() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kilobytes: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc/self/status has VmRSS")?
        .parse()?;
    Ok(f64::from(kilobytes) * 1_024.0)
}

/// The share of one processor that this whole program uses without requests.
async fn idle_cpu(seconds: u64) -> anyhow::Result<f64> {
    let before = processor_ns()?;
    let begun = Instant::now();
    sleep(Duration::from_secs(seconds)).await;
    let used = processor_ns()?.saturating_sub(before);
    Ok(total(used) / 1e9 / begun.elapsed().as_secs_f64())
}

/// The time that all threads were on a processor, in nanoseconds: `/proc/self/stat` counts in hundredths of a
/// second.
fn processor_ns() -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = schedstat.split_whitespace().next().unwrap_or("0");
        sum += first.parse::<u64>()?;
    }
    Ok(sum)
}
