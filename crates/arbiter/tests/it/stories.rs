//! How the slots of one server change hands, as stories with a few tenants.

use std::time::Duration;

use arbiter::{FAILURES_MAX, FailureKind, Rules};

use crate::harness::{Asked, Harness, MS};

const MICROSECOND: Duration = Duration::from_micros(1);

const ANNA: u32 = 1;
const BEN: u32 = 2;
const CARL: u32 = 3;
const DORA: u32 = 4;

/// The tenant's caller requests a connection and gets it.
fn served(harness: &mut Harness, tenant: u32) {
    if harness.ask(tenant) == Asked::Waits {
        assert_eq!(harness.connecting_for(), [tenant]);
        harness.connect_succeeds(0);
    }
    assert_eq!(harness.checked_out_by().last(), Some(&tenant));
}

#[test]
fn an_idle_connection_goes_first_and_the_one_used_least_among_them() {
    let mut harness = Harness::new(Rules::new(3), 3);
    for (tenant, uses) in [(ANNA, 5), (BEN, 1), (CARL, 3)] {
        for _ in 0..uses {
            served(&mut harness, tenant);
            harness.give_back(0);
        }
    }
    assert_eq!(harness.stats().taken, 3);

    // Ben's connection was used last, and least.
    served(&mut harness, BEN);
    harness.give_back(0);
    harness.pass(harness.rules.tenure);
    assert_eq!(harness.ask(DORA), Asked::Waits);
    assert_eq!(
        harness.connecting_for(),
        [],
        "no connect begins before the backend is gone"
    );
    assert_eq!(
        (harness.idle(ANNA), harness.idle(BEN), harness.idle(CARL)),
        (1, 0, 1)
    );
    harness.backend_gone(0);
    assert_eq!(harness.connecting_for(), [DORA]);
}

#[test]
fn within_its_tenure_a_connection_that_is_idle_for_a_moment_stays() {
    let mut harness = Harness::new(Rules::new(1), 1);
    served(&mut harness, ANNA);
    harness.give_back(0);
    assert_eq!(harness.ask(BEN), Asked::Waits);
    assert_eq!(harness.idle(ANNA), 1, "Anna's next request may be a moment away");
    assert_eq!(harness.ask(ANNA), Asked::CheckedOut);
    harness.give_back(0);

    harness.pass(harness.rules.anticipation - MICROSECOND);
    harness.arbiter.tick();
    assert_eq!(harness.idle(ANNA), 1);
    harness.pass(MICROSECOND);
    harness.arbiter.tick();
    assert_eq!(harness.idle(ANNA), 0, "it stayed idle");
}

#[test]
fn past_its_tenure_a_busy_connection_goes_to_whoever_waits() {
    let mut harness = Harness::new(Rules::new(1), 1);
    served(&mut harness, ANNA);
    for _ in 0..3 {
        assert_eq!(harness.ask(ANNA), Asked::Waits);
    }
    assert_eq!(harness.ask(BEN), Asked::Waits);
    harness.pass(harness.rules.tenure - MICROSECOND);
    harness.give_back(0);
    assert_eq!(
        harness.checked_out_by(),
        [ANNA],
        "Anna's next caller goes on with it"
    );
    harness.pass(MICROSECOND);
    harness.give_back(0);
    assert_eq!(harness.stats().yields_total, 1);
    harness.backend_gone(0);
    assert_eq!(harness.connecting_for(), [BEN]);
    harness.connect_succeeds(0);

    // Anna's other callers are in the queue without having to ask again.
    harness.pass(harness.rules.tenure);
    harness.give_back(0);
    harness.arbiter.tick();
    harness.backend_gone(0);
    assert_eq!(harness.connecting_for(), [ANNA]);
}

#[test]
fn with_nobody_waiting_a_connection_outlives_its_tenure() {
    let mut harness = Harness::new(Rules::new(2), 2);
    served(&mut harness, ANNA);
    harness.pass(harness.rules.tenure * 1_000);
    harness.give_back(0);
    harness.arbiter.tick();
    assert_eq!(harness.idle(ANNA), 1);
}

#[test]
fn the_tenant_with_the_fewest_connections_is_first() {
    let mut harness = Harness::new(Rules::new(6), 3);
    for tenant in [DORA, DORA, DORA, ANNA, ANNA, BEN] {
        served(&mut harness, tenant);
    }
    // Anna came first, and has two; then Ben, who has one; then Carl.
    for tenant in [ANNA, BEN, CARL] {
        assert_eq!(harness.ask(tenant), Asked::Waits);
    }
    let mut granted = Vec::new();
    for _ in 0..3 {
        harness.checked_out_breaks(0);
        harness.backend_gone(0);
        granted.extend(harness.connecting_for());
        harness.connect_succeeds(0);
    }
    assert_eq!(granted, [CARL, BEN, ANNA]);
}

#[test]
fn a_noisy_tenant_has_all_the_slack_and_gives_it_back() {
    let mut harness = Harness::new(Rules::new(4), 4);
    for _ in 0..12 {
        harness.ask(ANNA);
    }
    for _ in 0..4 {
        harness.connect_succeeds(0);
    }
    assert_eq!(harness.checked_out_by(), [ANNA; 4]);

    // Two others come. Each gets one at the next give-backs past the tenure, and Anna keeps the rest.
    assert_eq!(
        (harness.ask(BEN), harness.ask(CARL)),
        (Asked::Waits, Asked::Waits)
    );
    harness.pass(harness.rules.tenure);
    for _ in 0..4 {
        harness.give_back(0);
    }
    assert_eq!(harness.checked_out_by(), [ANNA; 2]);
    for _ in 0..2 {
        harness.backend_gone(0);
        harness.connect_succeeds(0);
    }
    assert_eq!(harness.checked_out_by(), [ANNA, ANNA, BEN, CARL]);
}

#[test]
fn a_further_connection_is_taken_after_a_while_from_one_that_has_more() {
    let mut harness = Harness::new(Rules::new(4), 3);
    for tenant in [ANNA, BEN, BEN, BEN] {
        served(&mut harness, tenant);
    }
    // All of Ben's are idle and past their tenure.
    harness.pass(harness.rules.tenure);
    for _ in 0..3 {
        harness.give_back(1);
    }
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    assert_eq!(
        harness.idle(BEN),
        3,
        "the connection that Anna has may be back in a moment"
    );
    harness.pass(harness.rules.grow_after);
    harness.arbiter.tick();
    assert_eq!(harness.idle(BEN), 2);
}

#[test]
fn where_it_would_only_leave_the_other_with_fewer_it_is_a_matter_of_turns() {
    let mut harness = Harness::new(Rules::new(3), 2);
    for tenant in [ANNA, BEN, BEN] {
        served(&mut harness, tenant);
    }
    let give_all_back = |harness: &mut Harness| {
        harness.arbiter.tick();
        for _ in 0..3 {
            harness.give_back(0);
        }
    };
    // Anna's callers queue for one connection, Ben's for two: callers wait on both sides all the time.
    for tenant in [ANNA, ANNA, ANNA, BEN, BEN, BEN, BEN] {
        harness.ask(tenant);
    }
    harness.pass(harness.rules.tenure * 2);
    give_all_back(&mut harness);
    assert_eq!(
        harness.checked_out_by(),
        [ANNA, BEN, BEN],
        "a connect for every tenure would be too dear"
    );
    harness.pass(harness.rules.tenure * 2);
    give_all_back(&mut harness);
    assert_eq!(harness.stats().yields_total, 1);
    harness.backend_gone(0);
    assert_eq!(harness.connecting_for(), [ANNA]);
}

#[test]
fn one_that_just_waits_does_not_hold_up_one_that_may_take() {
    let mut harness = Harness::new(Rules::new(5), 4);
    for tenant in [CARL, CARL, CARL, ANNA, BEN] {
        served(&mut harness, tenant);
    }
    for _ in 0..3 {
        harness.give_back(0);
    }
    // Anna is before Ben in the queue, but her callers are served again and again, and others come.
    assert_eq!(
        (harness.ask(ANNA), harness.ask(BEN)),
        (Asked::Waits, Asked::Waits)
    );
    harness.pass(harness.rules.grow_after);
    harness.give_back(0);
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    harness.arbiter.tick();
    assert_eq!(harness.idle(CARL), 2, "Ben has waited long enough");
}

#[test]
fn among_tenants_that_are_all_busy_frequency_makes_no_favourite() {
    let mut harness = Harness::new(Rules::new(2), 1);
    for (tenant, uses) in [(ANNA, 100), (BEN, 1)] {
        for _ in 0..uses {
            served(&mut harness, tenant);
            harness.give_back(0);
        }
        harness.pass(MS);
    }
    // Both are past their tenure and were used just now. Anna was used more often because she has had hers
    // for longer.
    harness.pass(harness.rules.tenure);
    for tenant in [ANNA, BEN] {
        served(&mut harness, tenant);
        harness.give_back(0);
    }
    assert_eq!(harness.ask(CARL), Asked::Waits);
    assert_eq!((harness.idle(ANNA), harness.idle(BEN)), (0, 1));
}

#[test]
fn a_backend_that_does_not_end_holds_nobody_up() {
    let rules = Rules {
        connects_max: 1,
        ..Rules::new(2)
    };
    let mut harness = Harness::new(rules, 1);
    served(&mut harness, ANNA);
    served(&mut harness, BEN);
    harness.checked_out_breaks(0);
    harness.pass(MS * 10);
    harness.give_back(0);
    assert_eq!(harness.ask(CARL), Asked::Waits);
    assert_eq!(harness.idle(BEN), 1, "Anna's slot is expected any moment");
    harness.pass(MS * 100);
    harness.arbiter.tick();
    assert_eq!(harness.idle(BEN), 0, "it did not come");
    harness.backend_gone(1);
    assert_eq!(harness.connecting_for(), [CARL]);
    assert_eq!(harness.stats().taken, 2, "Anna's slot is still taken");
}

#[test]
fn when_the_server_is_down_all_hear_it_at_once_and_one_connect_at_a_time_tries_again() {
    let rules = Rules {
        connects_max: 4,
        ..Rules::new(4)
    };
    let mut harness = Harness::new(rules, 2);
    let all = [ANNA, BEN, CARL, DORA];
    for tenant in all {
        assert_eq!(harness.ask(tenant), Asked::Waits);
    }
    for _ in 0..FAILURES_MAX {
        harness.connect_fails(0, FailureKind::Unreachable);
        harness.backend_gone(0);
    }
    assert!(harness.stats().breaker_open);
    assert!(!harness.anybody_waits(), "all were sent home");
    harness.connect_fails(0, FailureKind::Unreachable);
    harness.backend_gone(0);

    // Fail fast, and no connect before the pause is over.
    assert_eq!(harness.ask(BEN), Asked::Refused);
    harness.arbiter.tick();
    assert_eq!(harness.connects(), 0);
    harness.pass(MS * 1_000);
    for tenant in all {
        assert_eq!(harness.ask(tenant), Asked::Refused);
    }
    harness.arbiter.tick();
    harness.arbiter.tick();
    assert_eq!(
        harness.connecting_for(),
        [DORA],
        "one probe, for whoever asked last"
    );

    harness.connect_succeeds(0);
    assert!(!harness.stats().breaker_open);
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    assert_eq!(harness.connecting_for(), [ANNA]);
}

#[test]
fn a_silent_server_is_found_out_by_a_tenant_that_may_have_one_connection() {
    let mut harness = Harness::new(Rules::new(4), 1);
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    for failure in 1..=FAILURES_MAX {
        assert_eq!(harness.connecting_for(), [ANNA], "connect {failure}");
        // Whether a backend has begun is unknown.
        harness.connect_fails(0, FailureKind::Silent);
        harness.pass(MS * 1_000);
        if failure < FAILURES_MAX {
            harness.arbiter.tick();
        }
    }
    assert!(harness.stats().breaker_open);
    assert!(harness.arbiter.is_silent() && !harness.anybody_waits());
    assert_eq!(
        harness.stats().taken,
        FAILURES_MAX as usize,
        "the slots are not free before the backends are known to be gone"
    );
    assert_eq!(harness.arbiter.held(ANNA), 0);
}

#[test]
fn a_tenant_whose_log_ins_hang_does_not_take_the_budget_from_the_others() {
    let mut harness = Harness::new(Rules::new(16), 1);
    harness.ask(ANNA);
    for round in 0..20 {
        // Ben comes and goes all the while, so the server is well.
        harness.ask(BEN);
        harness.pass(MS * 1_000);
        harness.arbiter.tick();
        let connecting = harness.connecting_for();
        let nth = connecting.iter().position(|&tenant| tenant == BEN);
        harness.connect_succeeds(nth.unwrap_or_else(|| panic!("round {round}: {connecting:?}")));
        harness.checked_out_breaks(0);
        let gone = harness.stats().closing - 1;
        harness.backend_gone(gone);
        if harness.connecting_for() == [ANNA] {
            harness.connect_fails(0, FailureKind::Silent);
        }
    }
    assert!(!harness.stats().breaker_open);
    let stuck = harness.stats().taken;
    assert_eq!(
        stuck,
        1 + FAILURES_MAX as usize,
        "her cap, and as many as find out about a server"
    );
}

#[test]
fn a_server_that_answers_on_some_connection_is_not_silent() {
    let mut harness = Harness::new(Rules::new(8), 1);
    served(&mut harness, ANNA);
    harness.give_back(0);
    for _ in 0..FAILURES_MAX {
        assert_eq!(harness.ask(ANNA), Asked::CheckedOut);
        harness.ask(BEN);
        harness.pass(MS * 1_000);
        harness.arbiter.tick();
        harness.give_back(0);
        harness.connect_fails(0, FailureKind::Silent);
    }
    assert!(harness.stats().breaker_open);
    assert!(
        !harness.arbiter.is_silent(),
        "Anna's answers were heard meanwhile"
    );
    assert_eq!(harness.ask(ANNA), Asked::CheckedOut);
}

#[test]
fn a_secret_that_cannot_be_opened_says_nothing_about_the_server() {
    let mut harness = Harness::new(Rules::new(4), 2);
    for tenant in [ANNA, BEN, CARL] {
        harness.ask(tenant);
    }
    for _ in 0..FAILURES_MAX {
        harness.connect_fails(0, FailureKind::Unreachable);
    }
    assert!(harness.stats().breaker_open);
    harness.pass(MS * 1_000);
    assert_eq!(harness.ask(DORA), Asked::Refused);
    harness.arbiter.tick();
    assert_eq!(harness.connecting_for(), [DORA]);
    harness.connect_fails(0, FailureKind::NotTried);
    assert!(harness.stats().breaker_open, "the server was not asked");
    harness.arbiter.tick();
    assert_eq!(harness.connects(), 0, "and Dora is not tried again by herself");
}

#[test]
fn whoever_waited_through_an_outage_is_served_after_it() {
    let mut harness = Harness::new(Rules::new(4), 2);
    served(&mut harness, ANNA);
    for tenant in [BEN, CARL, DORA] {
        harness.ask(tenant);
    }
    for _ in 0..FAILURES_MAX {
        harness.connect_fails(0, FailureKind::Unreachable);
    }
    assert!(harness.stats().breaker_open);
    // Her first connection is checked out and may come back.
    assert_eq!(harness.ask(ANNA), Asked::Refused);
    assert!(harness.anybody_waits());
    while harness.stats().closing > 0 {
        harness.backend_gone(0);
    }
    harness.pass(MS * 1_000);
    assert_eq!(harness.ask(BEN), Asked::Refused);
    harness.arbiter.tick();
    assert_eq!(harness.connecting_for(), [BEN]);
    harness.connect_succeeds(0);
    assert_eq!(harness.connecting_for(), [ANNA], "she waits, and there is room");
}

#[test]
fn a_connect_that_is_lost_without_a_word_has_failed() {
    let mut harness = Harness::new(Rules::new(1), 1);
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    harness.connect_abandoned(0);
    assert_eq!(harness.connects(), 0, "the connect is not tried again at once");
    assert_eq!(harness.stats().taken, 0);
    harness.pass(MS * 1_000);
    harness.arbiter.tick();
    assert_eq!(harness.connecting_for(), [ANNA]);
}

#[test]
fn a_caller_who_comes_too_late_to_a_closed_pool_does_not_push_the_new_one_aside() {
    let mut harness = Harness::new(Rules::new(1), 1);
    served(&mut harness, BEN);
    harness.pool(ANNA);
    harness.close_pool(ANNA);
    assert_eq!(harness.ask(ANNA), Asked::Waits);
    harness.ask_too_late();
    harness.give_back(0);
    harness.pass(harness.rules.tenure);
    harness.arbiter.tick();
    harness.backend_gone(0);
    harness.connect_succeeds(0);
    assert_eq!(harness.checked_out_by(), [ANNA]);
}
