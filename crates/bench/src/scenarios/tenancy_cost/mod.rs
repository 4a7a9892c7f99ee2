//! What tenancy costs: one authenticated read over HTTP from `tenantd` with 200 laboratories, and from a
//! program with one database and without tenants (the binary `single-tenant`).
//!
//! Both programs use one PostgreSQL server and answer the same client in turns. The client keeps 16
//! connections alive. Each sends requests for its own laboratories, one after the other, so that all 200 get
//! requests in turn and none gets two at once. The single-tenant program has as many people and patients as
//! all laboratories together.
//!
//! A third side, `plain_many`, is the single-tenant program with as many connections to its database as
//! `tenantd` has to all databases, used in turn. The difference to `plain` is what 200 backends cost
//! PostgreSQL, whichever program uses them.

mod api;
mod harness;
mod wire;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::{
    api::{Api, Laboratory},
    harness::Harness,
    wire::Requests,
};
use super::{Pace, ratio};
use crate::{
    measure::Tally,
    report::{Outcome, Round, Target, side, three},
};

const LABORATORIES: usize = 200;
const PATIENTS: usize = 2;
/// Kept alive by the client.
const CONNECTIONS: usize = 16;
/// One for each laboratory, and some for laboratories that get a request while the connection before is being
/// given back.
const BUDGET: usize = LABORATORIES + 8;
/// The pool of `plain`: as many connections as there are requests at once.
const PLAIN_POOL: usize = CONNECTIONS;
/// Ours, both single-tenant programs', the registry's and people's.
const MAX_CONNECTIONS: usize = 2 * BUDGET + PLAIN_POOL + 40;
const SHARE_MIN: f64 = 0.95;
/// More rounds than elsewhere, and shorter ones: a ratio near 1 needs pairs that are close together.
const ROUNDS: usize = 9;

/// The laboratory whose database the single-tenant program gets.
const SINGLE: &str = "plain";

const OURS: &str = "ours";
const PLAIN: &str = "plain";
const PLAIN_MANY: &str = "plain_many";

/// A program under load.
struct Served {
    name: &'static str,
    address: SocketAddr,
    plans: Vec<Requests>,
}

/// Returns whether its targets were reached.
pub(crate) async fn run(pace: Pace) -> anyhow::Result<bool> {
    let laboratories = if pace.quick { 24 } else { LABORATORIES };
    let harness = Harness::start(MAX_CONNECTIONS, BUDGET).await?;
    harness.prepare()?;
    let tenantd = harness.tenantd().await?;
    let api = Api::open(tenantd.address).await?;
    let slugs: Vec<String> = (0..laboratories)
        .map(|number| format!("lab-{number:03}"))
        .collect();
    let labs = api.laboratories(&slugs, PATIENTS).await?;
    let single = api
        .laboratories(&[SINGLE.to_owned()], PATIENTS * laboratories)
        .await?;
    let mut single = single.into_iter().next().context("it was made")?;
    single.token = harness::signed_for_single_tenant(&single.token)?;
    harness.take_over(SINGLE).await?;
    let plain = harness.single_tenant(SINGLE, PLAIN_POOL)?;
    let plain_many = harness.single_tenant(SINGLE, laboratories)?;
    let served = [
        Served {
            name: OURS,
            address: tenantd.address,
            plans: plans(&labs),
        },
        Served {
            name: PLAIN,
            address: plain.address,
            plans: plans(&split(&single)),
        },
        Served {
            name: PLAIN_MANY,
            address: plain_many.address,
            plans: plans(&split(&single)),
        },
    ];
    let all = take_turns(&served, pace).await?;
    drop((tenantd, plain, plain_many));
    let refused = harness.refused()?;
    harness.stop().await?;
    report(&all, laboratories, refused)
}

/// Each connection's requests: its own laboratories in turn, patient by patient.
fn plans(labs: &[Laboratory]) -> Vec<Requests> {
    let patients = labs.iter().map(|lab| lab.patients.len()).max().unwrap_or(0);
    let plan = |connection: usize| {
        let own = || labs.iter().skip(connection).step_by(CONNECTIONS);
        (0..patients)
            .flat_map(|patient| own().filter_map(move |lab| Some((lab, lab.patients.get(patient)?))))
            .map(|(lab, patient)| wire::get(&format!("/api/v1/patients/{patient}"), &lab.token))
            .collect()
    };
    (0..CONNECTIONS).map(plan).collect()
}

/// The one laboratory's patients, shared out among the connections.
fn split(single: &Laboratory) -> Vec<Laboratory> {
    let share = |connection: usize| Laboratory {
        token: single.token.clone(),
        patients: single
            .patients
            .iter()
            .skip(connection)
            .step_by(CONNECTIONS)
            .cloned()
            .collect(),
    };
    (0..CONNECTIONS).map(share).collect()
}

async fn take_turns(served: &[Served], pace: Pace) -> anyhow::Result<Vec<(&'static str, Vec<Round>)>> {
    let mut all: Vec<_> = served.iter().map(|side| (side.name, Vec::new())).collect();
    let rounds = if pace.quick { 1 } else { ROUNDS };
    for round in 0..rounds {
        for turn in 0..served.len() {
            // So that no side always follows the same one.
            let at = (turn + round) % served.len();
            let side = &served[at];
            // Every connection to a database is made, and every statement prepared, before anything counts.
            load(side, pace.warm).await?;
            let tally = load(side, pace.slice).await?;
            let measured = Round::new(&tally, pace.slice.as_secs_f64(), &[], Default::default());
            eprintln!(
                "  round {}: {:<10} {:>8.0} q/s, {} errors",
                round + 1,
                side.name,
                measured.qps,
                measured.errors
            );
            all[at].1.push(measured);
        }
    }
    Ok(all)
}

/// On a thread of its own, off the runtime of the rest.
async fn load(side: &Served, length: Duration) -> anyhow::Result<Tally> {
    let (address, plans) = (side.address, side.plans.clone());
    tokio::task::spawn_blocking(move || wire::run(address, &plans, length)).await?
}

fn report(all: &[(&'static str, Vec<Round>)], laboratories: usize, refused: usize) -> anyhow::Result<bool> {
    let of = |wanted: &str| {
        let found = all.iter().find(|(name, _)| *name == wanted);
        found.map_or(&[][..], |(_, rounds)| rounds.as_slice())
    };
    let mut outcome = Outcome::new("tenancy_cost", laboratories, BUDGET);
    for (name, rounds) in all {
        outcome.put(name, side(rounds, config(name, laboratories)));
    }
    let share = ratio(of(OURS), of(PLAIN));
    outcome.put("share_of_plain", three(share));
    outcome.put("share_of_plain_many", three(ratio(of(OURS), of(PLAIN_MANY))));
    outcome.target(Target::new(
        &format!("at least {SHARE_MIN} of the single-tenant program"),
        format!("{share:.3}"),
        share >= SHARE_MIN,
    ));
    outcome.target(Target::no_errors(of(OURS)));
    outcome.target(Target::none_refused(refused));
    outcome.print()
}

fn config(side: &str, laboratories: usize) -> Value {
    match side {
        OURS => json!({
            "program": "tenantd", "laboratories": laboratories, "http_connections": CONNECTIONS,
            "router.budget": BUDGET, "log": "info, to a file",
        }),
        PLAIN_MANY => json!({ "program": "plain", "http_connections": CONNECTIONS, "pool": laboratories }),
        _ => json!({ "program": "plain", "http_connections": CONNECTIONS, "pool": PLAIN_POOL }),
    }
}
