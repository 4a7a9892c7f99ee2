//! How the slots of one server go around, told with a few tenants.

use arbiter::{FAILURES_MAX, Rules, Verdict};

use crate::world::{Asked, MS, World};

const ANNA: u32 = 1;
const BEN: u32 = 2;
const CARL: u32 = 3;
const DORA: u32 = 4;

/// The tenant's caller gets a connection, and has it.
fn served(world: &mut World, tenant: u32) {
    if world.ask(tenant) == Asked::Waits {
        assert_eq!(world.connecting_for(), [tenant]);
        world.connect_succeeds(0);
    }
    assert_eq!(world.lent_to().last(), Some(&tenant));
}

#[test]
fn an_idle_connection_goes_first_and_the_one_used_least_among_them() {
    let mut world = World::new(Rules::new(3), 3);
    for (tenant, uses) in [(ANNA, 5), (BEN, 1), (CARL, 3)] {
        for _ in 0..uses {
            served(&mut world, tenant);
            world.give_back(0);
        }
    }
    assert_eq!(world.standing().taken, 3);

    // Ben's was used last, and least.
    served(&mut world, BEN);
    world.give_back(0);
    world.pass(world.rules.tenure);
    assert_eq!(world.ask(DORA), Asked::Waits);
    assert_eq!(
        world.connecting_for(),
        [],
        "no connect begins before the backend is gone"
    );
    assert_eq!((world.idle(ANNA), world.idle(BEN), world.idle(CARL)), (1, 0, 1));
    world.backend_gone(0);
    assert_eq!(world.connecting_for(), [DORA]);
}

#[test]
fn within_its_tenure_a_connection_that_is_idle_for_a_moment_stays() {
    let mut world = World::new(Rules::new(1), 1);
    served(&mut world, ANNA);
    world.give_back(0);
    assert_eq!(world.ask(BEN), Asked::Waits);
    assert_eq!(world.idle(ANNA), 1, "Anna's next request may be a moment away");
    assert_eq!(world.ask(ANNA), Asked::Lent);
    world.give_back(0);

    world.pass(world.rules.anticipation - 1);
    world.arbiter.tick();
    assert_eq!(world.idle(ANNA), 1);
    world.pass(1);
    world.arbiter.tick();
    assert_eq!(world.idle(ANNA), 0, "it stayed idle");
}

#[test]
fn past_its_tenure_a_busy_connection_goes_to_whoever_waits() {
    let mut world = World::new(Rules::new(1), 1);
    served(&mut world, ANNA);
    for _ in 0..3 {
        assert_eq!(world.ask(ANNA), Asked::Waits);
    }
    assert_eq!(world.ask(BEN), Asked::Waits);
    world.pass(world.rules.tenure - 1);
    world.give_back(0);
    assert_eq!(world.lent_to(), [ANNA], "Anna's next caller goes on with it");
    world.pass(1);
    world.give_back(0);
    assert_eq!(world.standing().yields_total, 1);
    world.backend_gone(0);
    assert_eq!(world.connecting_for(), [BEN]);
    world.connect_succeeds(0);

    // Anna's other callers stand in the line without having to ask again.
    world.pass(world.rules.tenure);
    world.give_back(0);
    world.arbiter.tick();
    world.backend_gone(0);
    assert_eq!(world.connecting_for(), [ANNA]);
}

#[test]
fn with_nobody_waiting_a_connection_outlives_its_tenure() {
    let mut world = World::new(Rules::new(2), 2);
    served(&mut world, ANNA);
    world.pass(1_000 * world.rules.tenure);
    world.give_back(0);
    world.arbiter.tick();
    assert_eq!(world.idle(ANNA), 1);
}

#[test]
fn the_tenant_with_the_fewest_connections_is_first() {
    let mut world = World::new(Rules::new(6), 3);
    for tenant in [DORA, DORA, DORA, ANNA, ANNA, BEN] {
        served(&mut world, tenant);
    }
    // Anna came first, and has two; then Ben, who has one; then Carl.
    for tenant in [ANNA, BEN, CARL] {
        assert_eq!(world.ask(tenant), Asked::Waits);
    }
    let mut granted = Vec::new();
    for _ in 0..3 {
        world.lent_breaks(0);
        world.backend_gone(0);
        granted.extend(world.connecting_for());
        world.connect_succeeds(0);
    }
    assert_eq!(granted, [CARL, BEN, ANNA]);
}

#[test]
fn a_noisy_tenant_has_all_the_slack_and_gives_it_back() {
    let mut world = World::new(Rules::new(4), 4);
    for _ in 0..12 {
        world.ask(ANNA);
    }
    for _ in 0..4 {
        world.connect_succeeds(0);
    }
    assert_eq!(world.lent_to(), [ANNA; 4]);

    // Two others come. Each gets one at the next give-backs past the tenure, and Anna keeps the rest.
    assert_eq!((world.ask(BEN), world.ask(CARL)), (Asked::Waits, Asked::Waits));
    world.pass(world.rules.tenure);
    for _ in 0..4 {
        world.give_back(0);
    }
    assert_eq!(world.lent_to(), [ANNA; 2]);
    for _ in 0..2 {
        world.backend_gone(0);
        world.connect_succeeds(0);
    }
    assert_eq!(world.lent_to(), [ANNA, ANNA, BEN, CARL]);
}

#[test]
fn a_further_connection_is_taken_after_a_while_from_one_that_has_more() {
    let mut world = World::new(Rules::new(4), 3);
    for tenant in [ANNA, BEN, BEN, BEN] {
        served(&mut world, tenant);
    }
    // All of Ben's are idle and past their tenure.
    world.pass(world.rules.tenure);
    for _ in 0..3 {
        world.give_back(1);
    }
    assert_eq!(world.ask(ANNA), Asked::Waits);
    assert_eq!(
        world.idle(BEN),
        3,
        "the connection that Anna has may be back in a moment"
    );
    world.pass(world.rules.grow_after);
    world.arbiter.tick();
    assert_eq!(world.idle(BEN), 2);
}

#[test]
fn where_it_would_only_leave_the_other_with_fewer_it_is_a_matter_of_turns() {
    let mut world = World::new(Rules::new(3), 2);
    for tenant in [ANNA, BEN, BEN] {
        served(&mut world, tenant);
    }
    let give_all_back = |world: &mut World| {
        world.arbiter.tick();
        for _ in 0..3 {
            world.give_back(0);
        }
    };
    // Anna's callers queue for one connection, Ben's for two: always somebody waits on either side.
    for tenant in [ANNA, ANNA, ANNA, BEN, BEN, BEN, BEN] {
        world.ask(tenant);
    }
    world.pass(2 * world.rules.tenure);
    give_all_back(&mut world);
    assert_eq!(
        world.lent_to(),
        [ANNA, BEN, BEN],
        "a connect for every tenure would be too dear"
    );
    world.pass(2 * world.rules.tenure);
    give_all_back(&mut world);
    assert_eq!(world.standing().yields_total, 1);
    world.backend_gone(0);
    assert_eq!(world.connecting_for(), [ANNA]);
}

#[test]
fn one_that_just_waits_does_not_hold_up_one_that_may_take() {
    let mut world = World::new(Rules::new(5), 4);
    for tenant in [CARL, CARL, CARL, ANNA, BEN] {
        served(&mut world, tenant);
    }
    for _ in 0..3 {
        world.give_back(0);
    }
    // Anna is before Ben in the line, but her callers keep being served and others come.
    assert_eq!((world.ask(ANNA), world.ask(BEN)), (Asked::Waits, Asked::Waits));
    world.pass(world.rules.grow_after);
    world.give_back(0);
    assert_eq!(world.ask(ANNA), Asked::Waits);
    world.arbiter.tick();
    assert_eq!(world.idle(CARL), 2, "Ben has waited long enough");
}

#[test]
fn among_tenants_that_are_all_busy_frequency_makes_no_favourite() {
    let mut world = World::new(Rules::new(2), 1);
    for (tenant, uses) in [(ANNA, 100), (BEN, 1)] {
        for _ in 0..uses {
            served(&mut world, tenant);
            world.give_back(0);
        }
        world.pass(MS);
    }
    // Both are past their tenure and were used just now. Anna was used more often because she has had hers for longer.
    world.pass(world.rules.tenure);
    for tenant in [ANNA, BEN] {
        served(&mut world, tenant);
        world.give_back(0);
    }
    assert_eq!(world.ask(CARL), Asked::Waits);
    assert_eq!((world.idle(ANNA), world.idle(BEN)), (0, 1));
}

#[test]
fn a_backend_that_does_not_end_holds_nobody_up() {
    let rules = Rules {
        connects_max: 1,
        ..Rules::new(2)
    };
    let mut world = World::new(rules, 1);
    served(&mut world, ANNA);
    served(&mut world, BEN);
    world.lent_breaks(0);
    world.pass(10 * MS);
    world.give_back(0);
    assert_eq!(world.ask(CARL), Asked::Waits);
    assert_eq!(world.idle(BEN), 1, "Anna's slot is expected any moment");
    world.pass(100 * MS);
    world.arbiter.tick();
    assert_eq!(world.idle(BEN), 0, "it did not come");
    world.backend_gone(1);
    assert_eq!(world.connecting_for(), [CARL]);
    assert_eq!(world.standing().taken, 2, "Anna's slot is still taken");
}

#[test]
fn when_the_server_is_down_all_hear_it_at_once_and_one_connect_at_a_time_tries_again() {
    let rules = Rules {
        connects_max: 4,
        ..Rules::new(4)
    };
    let mut world = World::new(rules, 2);
    let all = [ANNA, BEN, CARL, DORA];
    for tenant in all {
        assert_eq!(world.ask(tenant), Asked::Waits);
    }
    for _ in 0..FAILURES_MAX {
        world.connect_fails(0, Verdict::Unreachable);
        world.backend_gone(0);
    }
    assert!(world.standing().breaker_open);
    assert!(!world.anybody_waits(), "all were sent home");
    world.connect_fails(0, Verdict::Unreachable);
    world.backend_gone(0);

    // Fail fast, and no connect before the pause is over.
    assert_eq!(world.ask(BEN), Asked::Refused);
    world.arbiter.tick();
    assert_eq!(world.connects(), 0);
    world.pass(1_000 * MS);
    for tenant in all {
        assert_eq!(world.ask(tenant), Asked::Refused);
    }
    world.arbiter.tick();
    world.arbiter.tick();
    assert_eq!(
        world.connecting_for(),
        [DORA],
        "one probe, for whoever asked last"
    );

    world.connect_succeeds(0);
    assert!(!world.standing().breaker_open);
    assert_eq!(world.ask(ANNA), Asked::Waits);
    assert_eq!(world.connecting_for(), [ANNA]);
}

#[test]
fn a_silent_server_is_found_out_by_a_tenant_that_may_have_one_connection() {
    let mut world = World::new(Rules::new(4), 1);
    assert_eq!(world.ask(ANNA), Asked::Waits);
    for failure in 1..=FAILURES_MAX {
        assert_eq!(world.connecting_for(), [ANNA], "connect {failure}");
        // Whether a backend has begun is not known, and nothing is heard of it.
        world.connect_fails(0, Verdict::Silent);
        world.pass(1_000 * MS);
        if failure < FAILURES_MAX {
            world.arbiter.tick();
        }
    }
    assert!(world.standing().breaker_open);
    assert!(world.arbiter.is_silent() && !world.anybody_waits());
    assert_eq!(
        world.standing().taken,
        FAILURES_MAX as usize,
        "the slots are not free before the backends are known to be gone"
    );
    assert_eq!(world.arbiter.held(ANNA), 0);
}

#[test]
fn a_tenant_whose_log_ins_hang_does_not_take_the_budget_from_the_others() {
    let mut world = World::new(Rules::new(16), 1);
    world.ask(ANNA);
    for round in 0..20 {
        // Ben comes and goes all the while, so the server is well.
        world.ask(BEN);
        world.pass(1_000 * MS);
        world.arbiter.tick();
        let connecting = world.connecting_for();
        let nth = connecting.iter().position(|&tenant| tenant == BEN);
        world.connect_succeeds(nth.unwrap_or_else(|| panic!("round {round}: {connecting:?}")));
        world.lent_breaks(0);
        let gone = world.standing().ending - 1;
        world.backend_gone(gone);
        if world.connecting_for() == [ANNA] {
            world.connect_fails(0, Verdict::Silent);
        }
    }
    assert!(!world.standing().breaker_open);
    let stuck = world.standing().taken;
    assert_eq!(
        stuck,
        1 + FAILURES_MAX as usize,
        "her cap, and as many as find out about a server"
    );
}

#[test]
fn a_server_that_answers_on_some_connection_is_not_silent() {
    let mut world = World::new(Rules::new(8), 1);
    served(&mut world, ANNA);
    world.give_back(0);
    for _ in 0..FAILURES_MAX {
        assert_eq!(world.ask(ANNA), Asked::Lent);
        world.ask(BEN);
        world.pass(1_000 * MS);
        world.arbiter.tick();
        world.give_back(0);
        world.connect_fails(0, Verdict::Silent);
    }
    assert!(world.standing().breaker_open);
    assert!(!world.arbiter.is_silent(), "Anna's answers were heard meanwhile");
    assert_eq!(world.ask(ANNA), Asked::Lent);
}

#[test]
fn a_secret_that_cannot_be_opened_says_nothing_about_the_server() {
    let mut world = World::new(Rules::new(4), 2);
    for tenant in [ANNA, BEN, CARL] {
        world.ask(tenant);
    }
    for _ in 0..FAILURES_MAX {
        world.connect_fails(0, Verdict::Unreachable);
    }
    assert!(world.standing().breaker_open);
    world.pass(1_000 * MS);
    assert_eq!(world.ask(DORA), Asked::Refused);
    world.arbiter.tick();
    assert_eq!(world.connecting_for(), [DORA]);
    world.connect_fails(0, Verdict::NotTried);
    assert!(world.standing().breaker_open, "nobody has asked the server");
    world.arbiter.tick();
    assert_eq!(world.connects(), 0, "and Dora is not tried again by herself");
}

#[test]
fn whoever_waited_through_an_outage_is_served_after_it() {
    let mut world = World::new(Rules::new(4), 2);
    served(&mut world, ANNA);
    for tenant in [BEN, CARL, DORA] {
        world.ask(tenant);
    }
    for _ in 0..FAILURES_MAX {
        world.connect_fails(0, Verdict::Unreachable);
    }
    assert!(world.standing().breaker_open);
    // Her first connection is on loan and may come back.
    assert_eq!(world.ask(ANNA), Asked::Refused);
    assert!(world.anybody_waits());
    while world.standing().ending > 0 {
        world.backend_gone(0);
    }
    world.pass(1_000 * MS);
    assert_eq!(world.ask(BEN), Asked::Refused);
    world.arbiter.tick();
    assert_eq!(world.connecting_for(), [BEN]);
    world.connect_succeeds(0);
    assert_eq!(world.connecting_for(), [ANNA], "she waits, and there is room");
}

#[test]
fn a_connect_that_is_lost_without_a_word_has_failed() {
    let mut world = World::new(Rules::new(1), 1);
    assert_eq!(world.ask(ANNA), Asked::Waits);
    world.connect_abandoned(0);
    assert_eq!(world.connects(), 0, "it is not begun anew at once");
    assert_eq!(world.standing().taken, 0);
    world.pass(1_000 * MS);
    world.arbiter.tick();
    assert_eq!(world.connecting_for(), [ANNA]);
}

#[test]
fn a_caller_who_comes_too_late_to_a_closed_pool_does_not_push_the_new_one_aside() {
    let mut world = World::new(Rules::new(1), 1);
    served(&mut world, BEN);
    world.pool(ANNA);
    world.close_pool(ANNA);
    assert_eq!(world.ask(ANNA), Asked::Waits);
    world.ask_too_late();
    world.give_back(0);
    world.pass(world.rules.tenure);
    world.arbiter.tick();
    world.backend_gone(0);
    world.connect_succeeds(0);
    assert_eq!(world.lent_to(), [ANNA]);
}
