//! Whatever happens in whatever order: no slot is lost, doubled or given out beyond the budget, and who waits is served.

use arbiter::{Rules, Verdict};
use proptest::prelude::*;

use crate::world::{MS, Tenant, World};

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Ask(Tenant),
    Cancel(Tenant),
    ConnectSucceeds { nth: usize, handed_over_first: bool },
    ConnectFails(usize, Verdict),
    ConnectAbandoned(usize),
    GiveBack(usize),
    LentBreaks(usize),
    IdleCloses(Tenant),
    BackendDies(usize),
    BackendGone(usize),
    Tick(u64),
    ClosePool(Tenant),
    AskTooLate,
    Others(usize),
    Unanswered,
    Answered,
}

const TENANTS: Tenant = 7;

fn event() -> impl Strategy<Value = Event> {
    let tenant = || 0..TENANTS;
    let nth = || 0..8_usize;
    let verdict = prop_oneof![
        Just(Verdict::Silent),
        Just(Verdict::Unreachable),
        Just(Verdict::Full),
        Just(Verdict::Refused),
        Just(Verdict::NotTried),
        Just(Verdict::Lost),
    ];
    prop_oneof![
        12 => tenant().prop_map(Event::Ask),
        2 => tenant().prop_map(Event::Cancel),
        8 => (nth(), any::<bool>())
            .prop_map(|(nth, handed_over_first)| Event::ConnectSucceeds { nth, handed_over_first }),
        2 => (nth(), verdict).prop_map(|(nth, verdict)| Event::ConnectFails(nth, verdict)),
        1 => nth().prop_map(Event::ConnectAbandoned),
        8 => nth().prop_map(Event::GiveBack),
        1 => nth().prop_map(Event::LentBreaks),
        1 => tenant().prop_map(Event::IdleCloses),
        1 => nth().prop_map(Event::BackendDies),
        6 => nth().prop_map(Event::BackendGone),
        6 => prop_oneof![Just(1), Just(5), Just(30), Just(1_500)].prop_map(Event::Tick),
        1 => tenant().prop_map(Event::ClosePool),
        1 => Just(Event::AskTooLate),
        1 => (0..6_usize).prop_map(Event::Others),
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

fn happen(world: &mut World, event: &Event) {
    match *event {
        Event::Ask(tenant) => {
            world.ask(tenant);
        }
        Event::Cancel(tenant) => world.cancel(tenant),
        Event::ConnectSucceeds {
            nth,
            handed_over_first,
        } => {
            world.connect_ends(nth % world.connects().max(1), Ok(handed_over_first));
        }
        Event::ConnectFails(nth, verdict) => world.connect_fails(nth % world.connects().max(1), verdict),
        Event::ConnectAbandoned(nth) => world.connect_abandoned(nth),
        Event::GiveBack(nth) => {
            world.give_back(nth % world.lent().max(1));
        }
        Event::LentBreaks(nth) => world.lent_breaks(nth),
        Event::IdleCloses(tenant) => world.idle_closes(tenant),
        Event::BackendDies(nth) => world.backend_dies(nth),
        Event::BackendGone(nth) => world.backend_gone(nth),
        Event::Tick(ms) => {
            world.pass(ms * MS);
            world.arbiter.tick();
        }
        Event::ClosePool(tenant) => world.close_pool(tenant),
        Event::AskTooLate => world.ask_too_late(),
        Event::Others(others) => world.arbiter.set_others(others),
        Event::Unanswered => world.arbiter.unanswered(),
        Event::Answered => world.arbiter.answered(),
    }
}

/// From here on the server is well: connects and closes succeed, but for some backends that do not end, and callers give back
/// after a millisecond.
fn all_are_served(world: &mut World, stuck: usize) {
    world.arbiter.set_others(0);
    // One that takes a tenant's last slot, or the last of all, does hold somebody up.
    let stuck = stuck
        .min(world.endings())
        .min(world.rules.budget - 1)
        .min(world.slots_max - 1);
    // The longest pause of the breaker, and for each tenant a tenure, a connect and a close, one after the other.
    let limit = 2_000 + 100 * u64::from(TENANTS);
    for _ in 0..limit {
        if !world.anybody_waits() {
            return;
        }
        world.pass(MS);
        for _ in stuck..world.endings() {
            world.backend_gone(stuck);
        }
        for _ in 0..world.lent() {
            world.give_back(0);
        }
        for _ in 0..world.connects() {
            world.connect_succeeds(0);
        }
        world.arbiter.tick();
        world.check();
    }
    let waiting: Vec<Tenant> = (0..TENANTS).filter(|&tenant| world.is_waiting(tenant)).collect();
    panic!("{waiting:?} still wait: {:?}", world.standing());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_loses_or_doubles_a_slot(
        (rules, slots_max) in rules(),
        events in prop::collection::vec(event(), 1..120),
        slots_end_first in any::<bool>(),
    ) {
        let mut world = World::new(rules, slots_max);
        for event in &events {
            let calm = !world.anybody_waits() && !world.standing().breaker_open;
            let before = world.standing();
            let begun = world.connects_begun();
            happen(&mut world, event);
            world.check();
            if world.connects_begun() > begun {
                let now = world.standing();
                prop_assert!(now.taken + now.others <= now.budget, "granted beside others: {now:?}");
            }
            if calm && !world.anybody_waits() {
                let after = world.standing();
                prop_assert_eq!(
                    (before.taken_idle_total, before.yields_total),
                    (after.taken_idle_total, after.yields_total),
                    "closed while nobody waits, by {:?}", event
                );
            }
        }
        world.end_all(slots_end_first);

        // The whole budget can be had again.
        let mut world = world;
        world.pass(2_000 * MS);
        for tenant in 0..Tenant::try_from(rules.budget).expect("it is small") {
            world.ask(100 + tenant);
            world.pass(2_000 * MS);
            world.arbiter.tick();
            world.connect_succeeds(0);
            world.check();
        }
        prop_assert_eq!(world.standing().taken, rules.budget);
        world.end_all(slots_end_first);
    }

    #[test]
    fn whoever_waits_is_served_once_the_server_is_well(
        (rules, slots_max) in rules(),
        events in prop::collection::vec(event(), 1..80),
        stuck in 0..4_usize,
    ) {
        let mut world = World::new(rules, slots_max);
        for event in &events {
            happen(&mut world, event);
        }
        all_are_served(&mut world, stuck);
        world.end_all(true);
    }
}
