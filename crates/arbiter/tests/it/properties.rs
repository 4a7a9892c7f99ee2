//! Whatever happens in whatever order, no slot is lost, doubled or granted beyond the budget, and each
//! waiting tenant is served.

use arbiter::{FailureKind, Rules};
use proptest::prelude::*;

use crate::harness::{Harness, MS, Tenant};

/// One event. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Ask(Tenant),
    Cancel(Tenant),
    ConnectSucceeds { nth: usize, handed_over_first: bool },
    ConnectFails(usize, FailureKind),
    ConnectAbandoned(usize),
    GiveBack(usize),
    CheckedOutBreaks(usize),
    IdleCloses(Tenant),
    BackendDies(usize),
    BackendGone(usize),
    Tick(u32),
    ClosePool(Tenant),
    AskTooLate,
    Predecessors(usize),
    Unanswered,
    Answered,
}

const TENANTS: Tenant = 7;

fn event() -> impl Strategy<Value = Event> {
    let tenant = || 0..TENANTS;
    let nth = || 0..8_usize;
    let kind = prop_oneof![
        Just(FailureKind::Silent),
        Just(FailureKind::Unreachable),
        Just(FailureKind::Full),
        Just(FailureKind::Refused),
        Just(FailureKind::NotTried),
        Just(FailureKind::Lost),
    ];
    prop_oneof![
        12 => tenant().prop_map(Event::Ask),
        2 => tenant().prop_map(Event::Cancel),
        8 => (nth(), any::<bool>())
            .prop_map(|(nth, handed_over_first)| Event::ConnectSucceeds { nth, handed_over_first }),
        2 => (nth(), kind).prop_map(|(nth, kind)| Event::ConnectFails(nth, kind)),
        1 => nth().prop_map(Event::ConnectAbandoned),
        8 => nth().prop_map(Event::GiveBack),
        1 => nth().prop_map(Event::CheckedOutBreaks),
        1 => tenant().prop_map(Event::IdleCloses),
        1 => nth().prop_map(Event::BackendDies),
        6 => nth().prop_map(Event::BackendGone),
        6 => prop_oneof![Just(1), Just(5), Just(30), Just(1_500)].prop_map(Event::Tick),
        1 => tenant().prop_map(Event::ClosePool),
        1 => Just(Event::AskTooLate),
        1 => (0..6_usize).prop_map(Event::Predecessors),
        1 => Just(Event::Unanswered),
        1 => Just(Event::Answered),
    ]
}

fn rules() -> impl Strategy<Value = (Rules, usize)> {
    (1..6_usize, 1..5_usize, 1..4_usize).prop_map(|(budget, connects_max, slots_max)| {
        let rules = Rules {
            connects_max,
            ageing_uses: 4,
            memory: 2,
            ..Rules::new(budget)
        };
        (rules, slots_max)
    })
}

fn happen(harness: &mut Harness, event: &Event) {
    match *event {
        Event::Ask(tenant) => {
            harness.ask(tenant);
        }
        Event::Cancel(tenant) => harness.cancel(tenant),
        Event::ConnectSucceeds {
            nth,
            handed_over_first,
        } => {
            harness.connect_ends(nth % harness.connects().max(1), Ok(handed_over_first));
        }
        Event::ConnectFails(nth, kind) => harness.connect_fails(nth % harness.connects().max(1), kind),
        Event::ConnectAbandoned(nth) => harness.connect_abandoned(nth),
        Event::GiveBack(nth) => {
            harness.give_back(nth % harness.checked_out().max(1));
        }
        Event::CheckedOutBreaks(nth) => harness.checked_out_breaks(nth),
        Event::IdleCloses(tenant) => harness.idle_closes(tenant),
        Event::BackendDies(nth) => harness.backend_dies(nth),
        Event::BackendGone(nth) => harness.backend_gone(nth),
        Event::Tick(ms) => {
            harness.pass(MS * ms);
            harness.arbiter.tick();
        }
        Event::ClosePool(tenant) => harness.close_pool(tenant),
        Event::AskTooLate => harness.ask_too_late(),
        Event::Predecessors(predecessors) => harness.arbiter.set_predecessors(predecessors),
        Event::Unanswered => harness.arbiter.unanswered(),
        Event::Answered => harness.arbiter.answered(),
    }
}

/// From here on the server is well: connects and closes succeed, except for some backends that do not exit,
/// and callers give back after a millisecond.
fn all_are_served(harness: &mut Harness, stuck: usize) {
    harness.arbiter.set_predecessors(0);
    // A backend that takes a tenant's last slot, or the last slot of all, does make callers wait.
    let stuck = stuck
        .min(harness.closings())
        .min(harness.rules.budget - 1)
        .min(harness.slots_max - 1);
    // The longest pause of the breaker, and for each tenant a tenure, a connect and a close, one after the
    // other.
    let limit = 2_000 + 100 * u64::from(TENANTS);
    for _ in 0..limit {
        if !harness.anybody_waits() {
            return;
        }
        harness.pass(MS);
        for _ in stuck..harness.closings() {
            harness.backend_gone(stuck);
        }
        for _ in 0..harness.checked_out() {
            harness.give_back(0);
        }
        for _ in 0..harness.connects() {
            harness.connect_succeeds(0);
        }
        harness.arbiter.tick();
        harness.check();
    }
    let waiting: Vec<Tenant> = (0..TENANTS)
        .filter(|&tenant| harness.is_waiting(tenant))
        .collect();
    panic!("{waiting:?} still wait: {:?}", harness.stats());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_loses_or_doubles_a_slot(
        (rules, slots_max) in rules(),
        events in prop::collection::vec(event(), 1..120),
        slots_end_first in any::<bool>(),
    ) {
        let mut harness = Harness::new(rules, slots_max);
        for event in &events {
            let calm = !harness.anybody_waits() && !harness.stats().breaker_open;
            let before = harness.stats();
            let begun = harness.connects_begun();
            happen(&mut harness, event);
            harness.check();
            if harness.connects_begun() > begun {
                let now = harness.stats();
                prop_assert!(now.taken + now.predecessors <= now.budget, "granted beside others: {now:?}");
            }
            if calm && !harness.anybody_waits() {
                let after = harness.stats();
                prop_assert_eq!(
                    (before.taken_idle_total, before.yields_total),
                    (after.taken_idle_total, after.yields_total),
                    "closed while nobody waits, by {:?}", event
                );
            }
        }
        harness.end_all(slots_end_first);

        // The whole budget can be had again.
        let mut harness = harness;
        harness.pass(MS * 2_000);
        for tenant in 0..Tenant::try_from(rules.budget).expect("it is small") {
            harness.ask(100 + tenant);
            harness.pass(MS * 2_000);
            harness.arbiter.tick();
            harness.connect_succeeds(0);
            harness.check();
        }
        prop_assert_eq!(harness.stats().taken, rules.budget);
        harness.end_all(slots_end_first);
    }

    #[test]
    fn whoever_waits_is_served_once_the_server_is_well(
        (rules, slots_max) in rules(),
        events in prop::collection::vec(event(), 1..80),
        stuck in 0..4_usize,
    ) {
        let mut harness = Harness::new(rules, slots_max);
        for event in &events {
            happen(&mut harness, event);
        }
        all_are_served(&mut harness, stuck);
        harness.end_all(true);
    }
}
