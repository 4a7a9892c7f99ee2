//! All callers come at once: a thousand laboratories without a connection, and a thousand callers of one
//! laboratory.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{Pace, Rounds, of, put_sides, take_turns};
use crate::{
    ceiling,
    fleet::{Fleet, Host},
    measure::{Tally, count, median, total},
    peers::{NaiveTuning, Ours, Peer, Side, Tuning, Work, ours_config},
    report::{Outcome, Round, Target, rounded},
    sampler::Sampler,
};

const CALLERS: usize = 1_000;
/// Of the time that as many bare connects take.
const TIMES_MAX: f64 = 1.2;

pub(crate) async fn run(fleet: &Fleet, host: &Host, pace: Pace) -> anyhow::Result<bool> {
    let many = cold_tenants(fleet, host, pace).await?;
    let one = one_tenant(fleet, host).await?;
    Ok(many && one)
}

async fn cold_tenants(fleet: &Fleet, host: &Host, pace: Pace) -> anyhow::Result<bool> {
    let tenants = host.tenants.len();
    let length = Duration::from_millis(if pace.quick { 1_000 } else { 3_000 });
    let before = ceiling::connects_per_second(&host.tenants, length).await;
    let tuning = Tuning {
        naive: NaiveTuning::many(host.budget),
        bouncer_pool: 4,
        clients: 1,
    };
    let all = take_turns(fleet, host, tenants, tuning, pace, &Side::ALL, async |peer| {
        Ok(at_once(peer, (0..tenants).collect()).await)
    })
    .await?;
    // Measured again, because the machine may have become slower or faster meanwhile; the mean favours
    // neither side.
    let after = ceiling::connects_per_second(&host.tenants, length).await;
    let bare = f64::midpoint(before, after);
    let mut outcome = Outcome::new("morning", tenants, host.budget);
    put_sides(&mut outcome, &all);
    outcome.put("bare_connects_per_second", rounded(bare));
    outcome.target(Target::backends(of(&all, Side::Ours), host.budget));
    judge_cold(&mut outcome, &all, count(tenants) / bare.max(f64::MIN_POSITIVE));
    outcome.print()
}

fn judge_cold(outcome: &mut Outcome, all: &[Rounds], bare_seconds: f64) {
    let ours = of(all, Side::Ours);
    let taken: Vec<f64> = ours
        .iter()
        .filter_map(|round| round.more.get("seconds").copied())
        .collect();
    let times = median(&taken) / bare_seconds;
    outcome.target(Target::new(
        &format!("at most {TIMES_MAX} times as long as bare connects ({bare_seconds:.2} s)"),
        format!("{times:.2} ({:.2} s)", median(&taken)),
        !taken.is_empty() && times <= TIMES_MAX,
    ));
    outcome.target(Target::no_errors(ours));
}

/// All callers at the same moment, each for the tenant named for it.
async fn at_once(peer: &Arc<dyn Peer>, tenants: Vec<usize>) -> Round {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for tenant in tenants {
        let peer = Arc::clone(peer);
        tasks.spawn(async move {
            let mut tally = Tally::default();
            match peer.request(tenant, Work::Point).await {
                Ok(()) => tally.done += 1,
                Err(failure) => tally.fail(&failure),
            }
            tally.wait(begun.elapsed());
            tally
        });
    }
    let tallies = tasks.join_all().await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut round = Round::new(&Tally::sum(&tallies), seconds, &[], Default::default());
    round.more.insert("seconds", seconds);
    round
}

async fn one_tenant(fleet: &Fleet, host: &Host) -> anyhow::Result<bool> {
    let config = ours_config(fleet, host.budget);
    let cap = config.pool_size_max;
    let resolver = Ours::start(config).await?;
    let ours: Arc<dyn Peer> = Arc::new(Ours::new(resolver.clone(), &host.tenants[..1]));
    let sampler = Sampler::start(host).await?;
    let mut round = at_once(&ours, vec![0; CALLERS]).await;
    round.seen = sampler.stop().await?;
    let stats = resolver.stats();
    ours.rest().await?;
    host.wait_until_empty().await?;
    round.more.insert("connects", total(stats.connects_total));
    round
        .more
        .insert("registry_reads", total(stats.snapshot_loads_total));
    let mut outcome = Outcome::new("morning", 1, host.budget);
    outcome.put("callers", json!(CALLERS));
    outcome.put(
        "ours",
        crate::report::side(std::slice::from_ref(&round), json!({ "pool_size_max": cap })),
    );
    let reads = stats.snapshot_loads_total;
    outcome.target(Target::new("one read of the registry", reads, reads == 1));
    let connects = stats.connects_total;
    outcome.target(Target::new(
        &format!("at most {cap} connects, the cap of one tenant"),
        connects,
        usize::try_from(connects).is_ok_and(|connects| connects <= cap),
    ));
    outcome.target(Target::no_errors(&[round]));
    outcome.print()
}
