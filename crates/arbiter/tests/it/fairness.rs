//! With more busy tenants than slots, some with many callers and slow statements, no tenant starves.

use std::{collections::BTreeMap, time::Duration};

use arbiter::{Rules, Timestamp};
use proptest::prelude::*;

use crate::harness::{Asked, Harness, MS, Tenant};

const STEP: Duration = Duration::from_micros(500);
const CONNECT: Duration = Duration::from_millis(3);
const CLOSE: Duration = MS;

/// A tenant with this many callers, each of which asks again at once, and how long they keep a connection.
#[derive(Debug, Clone, Copy)]
struct Busy {
    callers: usize,
    keeps: Duration,
}

fn busy() -> impl Strategy<Value = Busy> {
    prop_oneof![
        8 => (1..3_usize, 1..3_u32),
        // A noisy one.
        1 => (8..32_usize, 1..20_u32),
    ]
    .prop_map(|(callers, ms)| Busy {
        callers,
        keeps: MS * ms,
    })
}

/// A server that takes its time, and the longest wait of all tenants.
struct Play {
    harness: Harness,
    tenants: Vec<Busy>,
    /// When each checked-out connection comes back, each connect is done and each backend is gone.
    due: BTreeMap<u64, Timestamp>,
    connects: Vec<Timestamp>,
    closings: Vec<Timestamp>,
    served: Vec<(u64, Timestamp)>,
    longest: Duration,
}

impl Play {
    fn new(rules: Rules, tenants: Vec<Busy>) -> Self {
        let harness = Harness::new(rules, rules.budget);
        let served = vec![(0, harness.now()); tenants.len()];
        Self {
            harness,
            tenants,
            due: BTreeMap::new(),
            connects: Vec::new(),
            closings: Vec::new(),
            served,
            longest: Duration::ZERO,
        }
    }

    fn run(&mut self, time: Duration) {
        for (tenant, busy) in (0..).zip(self.tenants.clone()) {
            for _ in 0..busy.callers {
                self.ask(tenant);
            }
        }
        let end = self.harness.now() + time;
        while self.harness.now() < end {
            self.harness.pass(STEP);
            self.step();
            self.harness.check();
        }
    }

    fn ask(&mut self, tenant: Tenant) {
        assert_ne!(self.harness.ask(tenant), Asked::Refused);
    }

    fn step(&mut self) {
        let now = self.harness.now();
        let is_due = |due: &Vec<Timestamp>| due.first().is_some_and(|&at| at <= now);
        while is_due(&self.closings) {
            self.closings.remove(0);
            self.harness.backend_gone(0);
            self.look();
        }
        while is_due(&self.connects) {
            self.connects.remove(0);
            self.harness.connect_succeeds(0);
            self.look();
        }
        for number in self.harness.checked_out_numbers() {
            if self.due.get(&number).is_some_and(|&at| at <= now) {
                self.due.remove(&number);
                let index = self
                    .harness
                    .checked_out_numbers()
                    .iter()
                    .position(|&one| one == number);
                let index = index.expect("it is checked out");
                let tenant = self.harness.checked_out_by()[index];
                self.harness.give_back(index);
                self.ask(tenant);
                self.look();
            }
        }
        self.harness.arbiter.tick();
        self.look();
    }

    /// Records what began since the last call.
    fn look(&mut self) {
        let now = self.harness.now();
        for (number, tenant) in self
            .harness
            .checked_out_numbers()
            .into_iter()
            .zip(self.harness.checked_out_by())
        {
            let index = usize::try_from(tenant).expect("it is small");
            if !self.due.contains_key(&number) {
                self.due.insert(number, now + self.tenants[index].keeps);
                let (times, last) = &mut self.served[index];
                self.longest = self.longest.max(now.since(*last));
                (*times, *last) = (*times + 1, now);
            }
        }
        self.connects.resize(self.harness.connects(), now + CONNECT);
        self.closings.resize(self.harness.closings(), now + CLOSE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_busy_tenant_starves(
        budget in 1..9_usize,
        connects_max in 1..5_usize,
        tenants in prop::collection::vec(busy(), 1..30),
    ) {
        let rules = Rules { connects_max, ..Rules::new(budget) };
        let keeps_max = tenants.iter().map(|busy| busy.keeps).max().unwrap_or_default();
        let small = |number: usize| u32::try_from(number).expect("it is small");
        let count = small(tenants.len());
        // Rounds of tenures, each with a statement that goes on past it, a close and a connect; and the
        // connects of all, a few at a time. Twice that is no starving.
        let turn = rules.tenure + keeps_max + CLOSE + CONNECT + MS * 2;
        let handover = CLOSE + CONNECT + STEP * 2;
        let bound = (turn * (count / small(budget) + 2) + handover * count / small(connects_max)) * 2;

        let mut play = Play::new(rules, tenants);
        play.run(bound * 3);
        prop_assert!(play.longest <= bound, "{} ms of {} ms", play.longest.as_millis(), bound.as_millis());
        prop_assert!(play.served.iter().all(|&(times, _)| times > 0), "{:?}", play.served);
    }
}
