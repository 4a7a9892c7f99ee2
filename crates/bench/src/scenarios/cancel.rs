//! Callers that misbehave at random: they vanish in the middle of a query, panic, or leave an open
//! transaction or a setting behind. The next caller must not see anything of it, and must not wait for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use resolver::{Resolver, ResolverConfig, TenantClient};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::Pace;
use tokio_postgres::Row;

use crate::{
    fleet::{Fleet, Host},
    measure::{Tally, count, total},
    peers::{Failure, Ours, POINT, bare_pool, item, ours_config},
    report::{Outcome, Target, rounded},
    sampler::{Sampler, Seen},
};

const TENANTS: usize = 8;
const WORKERS: usize = 16;
const AFTER_SLEEP_MAX: Duration = Duration::from_millis(20);
/// Fewer callers suffice to see what a bare pool lets through.
const NAIVE_BORROWERS: usize = 400;
const NAIVE_SLEEPS: usize = 2;

/// When the transaction began, and what the previous caller has left behind, if anything.
const LOOK: &str = "SELECT now()::text, CASE
    WHEN coalesce(current_setting('bench.mark', true), '') <> '' THEN 'a setting of its own'
    WHEN current_setting('search_path') LIKE '%leak%' THEN 'search_path'
    WHEN current_setting('statement_timeout') = '12345ms' THEN 'statement_timeout'
    WHEN current_user <> session_user THEN 'role'
    WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN 'a transaction id'
    WHEN EXISTS (SELECT FROM public.marks) THEN 'an uncommitted row'
    END";
/// The transaction's start again: the same, unless each statement has a transaction of its own.
const BEGAN: &str = "SELECT now()::text";
const MARK: &str = "INSERT INTO public.marks VALUES ('left behind')";
const SLOW: &str = "SELECT pg_sleep(0.005)";

/// What the callers found and which errors they got, by name.
#[derive(Default)]
struct Found {
    seen: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

pub(crate) async fn run(fleet: &Fleet, host: &Host, pace: Pace) -> anyhow::Result<bool> {
    let (borrowers, sleeps) = if pace.quick { (4_000, 20) } else { (100_000, 100) };
    let sampler = Sampler::start(host).await?;
    let resolver = Ours::start(ResolverConfig {
        // Each tenant's next caller gets the very connection that the one before misused.
        pool_size_max: 1,
        ..ours_config(fleet, host.budget)
    })
    .await?;
    let begun = Instant::now();
    let found = misbehave(&resolver, host, borrowers).await;
    let seconds = begun.elapsed().as_secs_f64();
    let after_sleep = after_sleep(&resolver, host, sleeps).await?;
    let left = resolver.close(Duration::from_secs(30)).await;
    left.map_err(|left| anyhow::anyhow!("{left} connections are left"))?;
    let seen = sampler.stop().await?;
    host.wait_until_empty().await?;
    let discarded = resolver.stats().discarded_total;
    let naive = naive(host).await?;
    host.wait_until_empty().await?;

    let mut outcome = Outcome::new("cancel", TENANTS, host.budget);
    outcome.put("borrowers", json!(borrowers));
    outcome.put(
        "ours",
        json!({
            "seen": found.seen,
            "errors": found.errors.values().sum::<u64>(),
            "errors_by": found.errors,
            "borrowers_per_second": rounded(count(borrowers) / seconds),
            "connections_discarded": discarded,
            "after_cancelled_sleep_p50_us": after_sleep.waits_us.value_at_quantile(0.5),
            "after_cancelled_sleep_p99_us": after_sleep.waits_us.value_at_quantile(0.99),
            "after_cancelled_sleep_max_us": after_sleep.waits_us.max(),
            "backends_max": seen.backends_max,
            "refused_53300": seen.refused,
        }),
    );
    outcome.put("naive", naive);
    judge(&mut outcome, &found, &after_sleep, seen);
    outcome.print()
}

fn judge(outcome: &mut Outcome, found: &Found, after_sleep: &Tally, seen: Seen) {
    let sum = |by: &BTreeMap<String, u64>| by.values().sum::<u64>();
    let (foreign, errors) = (sum(&found.seen), sum(&found.errors));
    outcome.target(Target::new(
        "no foreign transaction or setting seen",
        foreign,
        foreign == 0,
    ));
    outcome.target(Target::new(
        "no borrower met an error that was not its own",
        errors,
        errors == 0,
    ));
    let p99 = after_sleep.waits_us.value_at_quantile(0.99);
    outcome.target(Target::new(
        &format!(
            "checkout and query after a cancelled pg_sleep(2) at most {} ms (p99)",
            AFTER_SLEEP_MAX.as_millis()
        ),
        format!("{:.1} ms", total(p99) / 1e3),
        u128::from(p99) <= AFTER_SLEEP_MAX.as_micros(),
    ));
    outcome.target(Target::new(
        "none refused by the server (53300)",
        seen.refused,
        seen.refused == 0,
    ));
}

async fn misbehave(resolver: &Resolver, host: &Host, borrowers: usize) -> Found {
    let found = Arc::new(Mutex::new(Found::default()));
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (resolver, found, next) = (resolver.clone(), Arc::clone(&found), Arc::clone(&next));
        let ids: Vec<_> = host.tenants[..TENANTS].iter().map(|tenant| tenant.id).collect();
        workers.spawn(async move {
            while next.fetch_add(1, Relaxed) < borrowers {
                let tenant = ids[rand::random_range(0..TENANTS)];
                let (resolver, found) = (resolver.clone(), Arc::clone(&found));
                // A task of its own, so that a panic ends only this caller.
                let borrower = tokio::spawn(async move {
                    let looked = async {
                        let mut client = resolver.checkout(tenant).await?;
                        let look = client.query_one(LOOK, &[]).await?;
                        let began = client.query_one(BEGAN, &[]).await?;
                        Ok::<_, Failure>((client, left_behind(&look, &began)))
                    };
                    match looked.await {
                        Ok((client, left)) => {
                            if let Some(left) = left {
                                note(&found, |found| &mut found.seen, left);
                            }
                            // Errors of the caller's own statements do not count.
                            let _ = misdeed(client).await;
                        }
                        Err(failure) => note(&found, |found| &mut found.errors, failure.kind),
                    }
                });
                let _ = borrower.await;
            }
        });
    }
    workers.join_all().await;
    std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner))
}

fn left_behind(look: &Row, began: &Row) -> Option<String> {
    let same = look.get::<_, String>(0) == began.get::<_, String>(0);
    look.get::<_, Option<String>>(1)
        .or_else(|| same.then(|| "an open transaction".to_owned()))
}

fn note(found: &Mutex<Found>, which: fn(&mut Found) -> &mut BTreeMap<String, u64>, name: String) {
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    *which(&mut found).entry(name).or_default() += 1;
}

/// One of many ways to leave a connection in another state.
async fn misdeed(mut client: TenantClient) -> Result<(), Failure> {
    let moment = Duration::from_micros(rand::random_range(0..4_000));
    // The first four cost a connection more often than not and are half as frequent as the others.
    match rand::random_range(0..18) {
        // Vanishes in the middle of a statement.
        0 => drop(timeout(moment, client.query_one(SLOW, &[])).await),
        // Vanishes in the middle of a transaction's statement.
        1 => {
            let transaction = client.transaction().await?;
            transaction.execute(MARK, &[]).await?;
            drop(timeout(moment, transaction.query_one(SLOW, &[])).await);
        }
        // Vanishes somewhere between BEGIN and COMMIT.
        2 => {
            let work = async {
                let transaction = client.transaction().await?;
                transaction
                    .batch_execute("SET LOCAL bench.mark = 'local'")
                    .await?;
                transaction.execute("SELECT FROM items", &[]).await?;
                transaction.commit().await?;
                Ok::<_, Failure>(())
            };
            drop(timeout(moment / 8, work).await);
        }
        3 => {
            let transaction = client.transaction().await?;
            transaction.execute(MARK, &[]).await?;
            // The panic hook would print ten thousand backtraces.
            std::panic::resume_unwind(Box::new("a borrower panics"));
        }
        // A raw BEGIN, in several disguises, left open.
        4 | 11 => {
            client.execute("BEGIN", &[]).await?;
            client.execute(MARK, &[]).await?;
        }
        5 | 12 => {
            let transaction = client.transaction().await?;
            transaction
                .batch_execute(&format!("COMMIT; BEGIN; {MARK}"))
                .await?;
        }
        6 | 13 => {
            let transaction = client.transaction().await?;
            transaction
                .batch_execute("ROLLBACK AND CHAIN; COMMIT AND CHAIN")
                .await?;
            transaction.execute(MARK, &[]).await?;
        }
        // Settings that outlive their transaction.
        7 | 14 => drop(client.execute("SET search_path = leak", &[]).await?),
        8 | 15 => {
            let set = "SELECT set_config('bench.mark', 'left', false),
                              set_config('statement_timeout', '12345', false)";
            drop(client.query_one(set, &[]).await?);
        }
        9 | 16 => {
            let transaction = client.transaction().await?;
            transaction
                .batch_execute("SET bench.mark = 'left'; SET ROLE bench_group; SET search_path = leak")
                .await?;
            transaction.commit().await?;
        }
        // Now and then a caller that behaves well.
        _ => drop(client.query_one(POINT, &[&item()]).await?),
    }
    Ok(())
}

async fn after_sleep(resolver: &Resolver, host: &Host, times: usize) -> anyhow::Result<Tally> {
    let tenant = host.tenants[TENANTS].id;
    let mut tally = Tally::default();
    for _ in 0..times {
        let mut client = resolver.checkout(tenant).await?;
        let sleeping = client.query_one("SELECT pg_sleep(2)", &[]);
        if timeout(Duration::from_millis(20), sleeping).await.is_ok() {
            anyhow::bail!("a pg_sleep(2) ended within 20 ms");
        }
        let given_up = Instant::now();
        drop(client);
        let mut client = resolver.checkout(tenant).await?;
        client.query_one(POINT, &[&item()]).await?;
        tally.wait(given_up.elapsed());
    }
    Ok(tally)
}

/// The same with a bare deadpool, to show what the check finds there.
async fn naive(host: &Host) -> anyhow::Result<Value> {
    let pool = bare_pool(
        host.tenants[0]
            .target
            .to_config("bench naive", crate::fleet::CONNECT_LIMIT),
        1,
    );
    let mut found = Found::default();
    for number in 0..NAIVE_BORROWERS {
        let client = pool.get().await?;
        let looked = async {
            let look = client.query_one(LOOK, &[]).await?;
            let began = client.query_one(BEGAN, &[]).await?;
            Ok::<_, Failure>(left_behind(&look, &began))
        };
        match looked.await {
            Ok(Some(left)) => *found.seen.entry(left).or_default() += 1,
            Ok(None) => {}
            Err(failure) => *found.errors.entry(failure.kind).or_default() += 1,
        }
        match number % 4 {
            0 => drop(client.batch_execute(&format!("BEGIN; {MARK}")).await),
            1 => drop(client.batch_execute("ROLLBACK; SET bench.mark = 'left'").await),
            2 => drop(timeout(Duration::from_millis(1), client.query_one(SLOW, &[])).await),
            _ => drop(client.batch_execute("RESET ALL").await),
        }
    }
    let mut tally = Tally::default();
    for _ in 0..NAIVE_SLEEPS {
        let client = pool.get().await?;
        drop(
            timeout(
                Duration::from_millis(20),
                client.query_one("SELECT pg_sleep(2)", &[]),
            )
            .await,
        );
        let given_up = Instant::now();
        drop(client);
        let client = pool.get().await?;
        client
            .query_one(POINT, &[&item()])
            .await
            .context("the query after a cancelled one")?;
        tally.wait(given_up.elapsed());
    }
    Ok(json!({
        "borrowers": NAIVE_BORROWERS,
        "seen": found.seen,
        "errors": found.errors.values().sum::<u64>(),
        "errors_by": found.errors,
        "after_cancelled_sleep_p50_us": tally.waits_us.value_at_quantile(0.5),
    }))
}
