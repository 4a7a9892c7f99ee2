//! One of two servers stops answering, like a machine that hangs: its sockets stay open and no answer comes.
//!
//! The scenario stops every process of that PostgreSQL (SIGSTOP) and later resumes it. The callers of the
//! other server must not notice, the callers of the dead one must get an error at once, and service must be
//! back soon after the server is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::bail;
use model::ServerName;
use resolver::{Resolver, ResolverConfig};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::Pace;
use crate::{
    fleet::{Fleet, Host},
    freeze::Frozen,
    load::{self, Client},
    measure::{Tally, median, total},
    peers::{Ours, Peer, Work, ours_config},
    report::{Outcome, Target, rounded, three},
    sampler::refusals,
};

const TENANTS: usize = 16;
const BUDGET: usize = 16;
const THINK: Duration = Duration::from_millis(10);
/// The time limit of a caller, as any HTTP handler has one.
const PATIENCE: Duration = Duration::from_secs(1);
const OPENS_WITHIN: Duration = Duration::from_secs(30);
const FAST_FAILS: usize = 2_000;
const FAST_FAIL_MAX: Duration = Duration::from_millis(1);
const OTHER_TIMES_MAX: f64 = 1.05;
const BACK_WITHIN: Duration = Duration::from_secs(2);
const BACK_LIMIT: Duration = Duration::from_secs(30);

/// The figures of one outage.
struct Death {
    opened: Duration,
    fast_p99_us: f64,
    fast_max_us: u64,
    other_before_us: f64,
    other_during_us: f64,
    other_errors: u64,
    back: Duration,
}

pub(crate) async fn run(fleet: &Fleet, pace: Pace) -> anyhow::Result<bool> {
    let dying = fleet.host("dying", BUDGET, 0, TENANTS).await?;
    let other = fleet.host("other", BUDGET, 0, TENANTS).await?;
    let resolver = Ours::start(ResolverConfig {
        pools_max: 2 * TENANTS,
        ..ours_config(fleet, BUDGET)
    })
    .await?;
    let mut deaths = Vec::new();
    // One outage takes little time, and a 99th percentile needs many requests.
    let rounds = if pace.quick { 1 } else { 5 };
    for number in 1..=rounds {
        let death = die(&resolver, &dying, &other, pace.slice).await?;
        eprintln!(
            "  round {number}: breaker after {:.1} s, back after {:.2} s",
            death.opened.as_secs_f64(),
            death.back.as_secs_f64()
        );
        deaths.push(death);
    }
    let left = resolver.close(Duration::from_secs(30)).await;
    left.map_err(|left| anyhow::anyhow!("{left} connections are left"))?;
    let refused = refusals(&dying.log(), 0)? + refusals(&other.log(), 0)?;
    dying.stop().await?;
    other.stop().await?;
    report(&deaths, refused)
}

async fn die(resolver: &Resolver, dying: &Host, other: &Host, slice: Duration) -> anyhow::Result<Death> {
    let quiet: Arc<dyn Peer> = Arc::new(Ours::new(resolver.clone(), &other.tenants));
    let clients: Vec<Client> = (0..TENANTS)
        .map(|tenant| Client {
            tenant,
            work: Work::Point,
            think: THINK,
        })
        .collect();
    // Alone on the machine: beside callers that are served, the other server's callers would seem to gain by
    // the outage.
    let before = load::closed(&quiet, &clients, Duration::from_secs(1), slice).await;
    let over = Arc::new(AtomicBool::new(false));
    let callers = callers(resolver, dying, &over);
    sleep(Duration::from_secs(1)).await;
    let frozen = Frozen::new(dying)?;
    let stopped = Instant::now();
    // The other server's callers run all the while. Their figures are taken once the dead server is known to
    // be dead.
    let during = {
        let (quiet, clients) = (Arc::clone(&quiet), clients.clone());
        tokio::spawn(async move { load::closed(&quiet, &clients, Duration::ZERO, slice).await })
    };
    wait_for_breaker(resolver, &dying.name).await?;
    let opened = stopped.elapsed();
    let fast = fast_fails(resolver, dying).await?;
    let during = during.await?;
    frozen.thaw()?;
    let back = first_success(resolver, dying).await?;
    over.store(true, Relaxed);
    for caller in callers {
        caller.await?;
    }
    let (before, during) = (Tally::sum(&before), Tally::sum(&during));
    Ok(Death {
        opened,
        fast_p99_us: total(fast.waits_us.value_at_quantile(0.99)),
        fast_max_us: fast.waits_us.max(),
        other_before_us: total(before.waits_us.value_at_quantile(0.99)),
        other_during_us: total(during.waits_us.value_at_quantile(0.99)),
        other_errors: before.failed() + during.failed(),
        back,
    })
}

/// Callers that keep requesting the dying server's laboratories, before, during and after the outage.
fn callers(resolver: &Resolver, dying: &Host, over: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let peer: Arc<dyn Peer> = Arc::new(Ours::new(resolver.clone(), &dying.tenants));
    (0..TENANTS)
        .map(|tenant| {
            let (peer, over) = (Arc::clone(&peer), Arc::clone(over));
            tokio::spawn(async move {
                while !over.load(Relaxed) {
                    drop(timeout(PATIENCE, peer.request(tenant, Work::Point)).await);
                    sleep(THINK).await;
                }
            })
        })
        .collect()
}

async fn wait_for_breaker(resolver: &Resolver, server: &ServerName) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < OPENS_WITHIN {
        let servers = resolver.stats().servers;
        if servers
            .iter()
            .any(|stats| stats.server == *server && stats.breaker_open)
        {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("the breaker of {server} was not open after {OPENS_WITHIN:?}");
}

async fn fast_fails(resolver: &Resolver, dying: &Host) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for number in 0..FAST_FAILS {
        let asked = Instant::now();
        let tenant = dying.tenants[number % TENANTS].id;
        if timeout(PATIENCE, resolver.checkout(tenant))
            .await
            .is_ok_and(|answer| answer.is_ok())
        {
            bail!("a connection to a server that is stopped was lent after its breaker had opened");
        }
        tally.wait(asked.elapsed());
        if number % 100 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(tally)
}

async fn first_success(resolver: &Resolver, dying: &Host) -> anyhow::Result<Duration> {
    let peer = Ours::new(resolver.clone(), &dying.tenants);
    let begun = Instant::now();
    while begun.elapsed() < BACK_LIMIT {
        if let Ok(Ok(())) = timeout(PATIENCE, peer.request(0, Work::Point)).await {
            return Ok(begun.elapsed());
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("no request succeeded within {BACK_LIMIT:?} after the server was back");
}

fn report(deaths: &[Death], refused: usize) -> anyhow::Result<bool> {
    let all = |figure: fn(&Death) -> f64| deaths.iter().map(figure).collect::<Vec<_>>();
    let most = |figure: fn(&Death) -> f64| all(figure).into_iter().fold(0.0, f64::max);
    let fast = median(&all(|death| death.fast_p99_us));
    let other = median(&all(|death| {
        death.other_during_us / death.other_before_us.max(1.0)
    }));
    let back = most(|death| death.back.as_secs_f64());
    let errors: u64 = deaths.iter().map(|death| death.other_errors).sum();
    let mut outcome = Outcome::new("dead_server", 2 * TENANTS, BUDGET);
    outcome.put(
        "ours",
        json!({
            "breaker_opens_after_s": three(median(&all(|death| death.opened.as_secs_f64()))),
            "fast_fail_p99_us": rounded(fast),
            "fast_fail_max_us": deaths.iter().map(|death| death.fast_max_us).max(),
            "other_p99_us_alone": rounded(median(&all(|death| death.other_before_us))),
            "other_p99_us_during": rounded(median(&all(|death| death.other_during_us))),
            "other_errors": errors,
            "back_after_s": three(back),
        }),
    );
    outcome.target(Target::new(
        &format!(
            "fails within {} ms (p99) once the breaker is open",
            FAST_FAIL_MAX.as_millis()
        ),
        format!("{fast:.0} us"),
        fast <= FAST_FAIL_MAX.as_secs_f64() * 1e6,
    ));
    outcome.target(Target::new(
        &format!("the other server's p99 at most {OTHER_TIMES_MAX} times what it is alone, no errors"),
        format!("{other:.3}, {errors} errors"),
        other <= OTHER_TIMES_MAX && errors == 0,
    ));
    outcome.target(Target::new(
        &format!("back within {} s in every round", BACK_WITHIN.as_secs()),
        format!("{back:.2} s"),
        back <= BACK_WITHIN.as_secs_f64(),
    ));
    outcome.target(Target::none_refused(refused));
    outcome.print()
}
