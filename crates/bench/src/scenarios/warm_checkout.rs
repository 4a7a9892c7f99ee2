//! What a checkout costs when an idle connection is there: resolve, gate, checkout and return, against a bare
//! deadpool.
//!
//! No statement runs. The scenario checks on the server that none does: no backend's state changes meanwhile.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use deadpool_postgres::Pool;
use model::TenantId;
use resolver::ResolverConfig;
use serde_json::{Value, json};

use super::Pace;
use crate::{
    fleet::{Fleet, Host},
    measure::{count, median},
    peers::{Ours, bare_pool, ours_config},
    report::{Outcome, Target, rounded, three},
    sampler::refusals,
};

const TENANTS: usize = 200;
const THREADS: [usize; 2] = [1, 2];
const POOL_SIZE: usize = 8;
const TIMES_MAX: f64 = 2.0;
/// Two threads must do at least this many times the checkouts of one, when bare deadpool does too.
const SCALING_OF_BARE_MIN: f64 = 0.8;
/// Checkouts between two readings of the clock.
const BATCH: usize = 256;
const STATES: &str =
    "SELECT max(state_change)::text, count(*) FROM pg_stat_activity WHERE starts_with(usename, 'bench_')";

pub(crate) async fn run(fleet: &Fleet, pace: Pace) -> anyhow::Result<bool> {
    // Both sides' connections are open at once.
    let host = fleet.host("warm", TENANTS, TENANTS + 10, TENANTS).await?;
    let mut reached = true;
    for tenants in [1, TENANTS] {
        reached &= measure(fleet, &host, tenants, pace).await?;
    }
    let refused = refusals(&host.log(), 0)?;
    anyhow::ensure!(
        refused == 0,
        "{refused} connections were refused by the server (53300)"
    );
    host.stop().await?;
    Ok(reached)
}

async fn measure(fleet: &Fleet, host: &Host, tenants: usize, pace: Pace) -> anyhow::Result<bool> {
    let config = ResolverConfig {
        pools_max: TENANTS,
        ..ours_config(fleet, host.budget)
    };
    let resolver = Ours::start(config).await?;
    let ids: Arc<[TenantId]> = host.tenants[..tenants].iter().map(|tenant| tenant.id).collect();
    let pools: Arc<[Pool]> = host.tenants[..tenants]
        .iter()
        .map(|tenant| {
            bare_pool(
                tenant
                    .target
                    .to_config("bench deadpool", crate::fleet::CONNECT_LIMIT),
                POOL_SIZE,
            )
        })
        .collect();
    // Threads share one tenant, or each has its own; no thread waits for another's connection or needs a new
    // one.
    for number in 0..tenants {
        let held = (resolver.checkout(ids[number]).await?, pools[number].get().await?);
        if tenants < THREADS[1] {
            drop((resolver.checkout(ids[number]).await?, pools[number].get().await?));
        }
        drop(held);
    }
    let admin = host.admin().await?;
    let before = states(&admin).await?;
    let slice = if pace.quick {
        Duration::from_millis(200)
    } else {
        Duration::from_millis(500)
    };
    let mut rows = Vec::new();
    for threads in THREADS {
        let (mut ours, mut bare, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let ours_ns = {
                let (resolver, ids) = (resolver.clone(), Arc::clone(&ids));
                nanoseconds(threads, slice, async move |number| {
                    drop(black_box(resolver.checkout(ids[number % ids.len()]).await));
                })?
            };
            let bare_ns = {
                let pools = Arc::clone(&pools);
                nanoseconds(threads, slice, async move |number| {
                    drop(black_box(pools[number % pools.len()].get().await));
                })?
            };
            ours.push(ours_ns);
            bare.push(bare_ns);
            times.push(ours_ns / bare_ns);
        }
        rows.push((threads, median(&ours), median(&bare), median(&times)));
    }
    let after = states(&admin).await?;
    drop(admin);
    let reached = report(&rows, before == after, tenants, host.budget)?;
    drop(pools);
    let left = resolver.close(Duration::from_secs(30)).await;
    left.map_err(|left| anyhow::anyhow!("{left} connections are left"))?;
    host.wait_until_empty().await?;
    Ok(reached)
}

async fn states(admin: &tokio_postgres::Client) -> anyhow::Result<(Option<String>, i64)> {
    // When the server answers this, a second later at most, it has processed everything that was sent before.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let row = admin.query_one(STATES, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Of one thread for one checkout, while `threads` of them do nothing else.
fn nanoseconds(
    threads: usize,
    length: Duration,
    checkout: impl AsyncFn(usize) + Clone + Send + 'static,
) -> anyhow::Result<f64> {
    let handle = tokio::runtime::Handle::current();
    let lanes: Vec<_> = (0..threads)
        .map(|lane| {
            let (handle, checkout) = (handle.clone(), checkout.clone());
            std::thread::spawn(move || {
                handle.block_on(async {
                    let begun = Instant::now();
                    let mut done = 0_usize;
                    while begun.elapsed() < length {
                        for number in 0..BATCH {
                            checkout((done + number) * threads + lane).await;
                        }
                        done += BATCH;
                    }
                    begun.elapsed().as_secs_f64() * 1e9 / count(done)
                })
            })
        })
        .collect();
    let mut all = Vec::new();
    for lane in lanes {
        all.push(lane.join().ok().context("a measuring thread panicked")?);
    }
    Ok(all.iter().sum::<f64>() / count(all.len()))
}

fn report(
    rows: &[(usize, f64, f64, f64)],
    silent: bool,
    tenants: usize,
    budget: usize,
) -> anyhow::Result<bool> {
    let mut outcome = Outcome::new("warm_checkout", tenants, budget);
    let (_, ours, bare, _) = rows[0];
    outcome.put("ours_ns", rounded(ours));
    outcome.put("deadpool_ns", rounded(bare));
    let by_threads: Vec<Value> = rows
        .iter()
        .map(|(threads, ours, bare, times)| {
            json!({
                "threads": threads,
                "ours_ns": rounded(*ours),
                "deadpool_ns": rounded(*bare),
                "ratio": three(*times),
            })
        })
        .collect();
    outcome.put(
        "config",
        json!({"deadpool": {"recycling": "fast", "size": POOL_SIZE, "timeouts": "none"}}),
    );
    outcome.put("by_threads", json!(by_threads));
    for (threads, ours, bare, times) in rows {
        outcome.target(Target::new(
            &format!("at most {TIMES_MAX} times a bare deadpool, {threads} threads"),
            format!("{times:.2} ({ours:.0} against {bare:.0} ns)"),
            *times <= TIMES_MAX,
        ));
    }
    // How many times the checkouts of one thread two of them do.
    let scaling = |one: f64, two: f64| 2.0 * one / two;
    let (_, ours_two, bare_two, _) = rows[rows.len() - 1];
    let (ours_times, bare_times) = (scaling(ours, ours_two), scaling(bare, bare_two));
    outcome.put(
        "scaling",
        json!({"ours": three(ours_times), "deadpool": three(bare_times)}),
    );
    outcome.target(Target::new(
        &format!("scales with threads, at least {SCALING_OF_BARE_MIN} as well as bare deadpool"),
        format!("x{ours_times:.2} against x{bare_times:.2}"),
        ours_times >= SCALING_OF_BARE_MIN * bare_times,
    ));
    outcome.target(Target::new(
        "no round trip: no backend's state changed",
        silent,
        silent,
    ));
    outcome.print()
}
