//! The experiments, and the tables of their results.

use std::time::Duration;

use arbiter::Rules;

use crate::{
    cache::{self, Rule},
    simulation::{Arrivals, Caller, Pools, Results, Simulation, ms},
    table::{Cell, Table, number, percent, text},
    trace::{Day, Trace},
};

const SECOND: Duration = Duration::from_secs(1);
/// Slots of the server with hundreds of tenants and more: `max_connections` 100, less those reserved.
const SLOTS: usize = 90;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            json: false,
            quick: false,
            seed: 1,
        }
    }
}

impl Options {
    fn seconds(&self, seconds: u32) -> Duration {
        if self.quick {
            SECOND * seconds.div_ceil(5)
        } else {
            SECOND * seconds
        }
    }

    fn requests(&self, tenants: usize) -> usize {
        let requests = 400_000.max(10 * tenants);
        if self.quick { requests / 4 } else { requests }
    }
}

type Experiment = fn(&Options);

pub(crate) const EXPERIMENTS: &[(&str, Experiment)] = &[
    ("rules", rules),
    ("zipf", zipf),
    ("pools", pools),
    ("cold", cold),
    ("tenure", tenure),
    ("anticipation", anticipation),
    ("grow", grow),
    ("noisy", noisy),
    ("morning", morning),
];

fn rules(options: &Options) {
    let mut table = Table::new(
        "Which connection to close: misses in % of the requests, 90 slots",
        &["tenants", "day", "rule", "misses", "times best static"],
        options.json,
    );
    for tenants in [300, 1_000, 10_000, 100_000] {
        let requests = options.requests(tenants);
        for day in Day::ALL {
            let best = cache::best_static(day, tenants, SLOTS, requests, options.seed);
            let mut row = |name: String, misses: f64| {
                table.row(vec![
                    number(tenants as f64, 0),
                    text(day.name()),
                    text(name),
                    percent(misses),
                    number(misses / best, 3),
                ]);
            };
            row("best static".to_owned(), best);
            for rule in candidates() {
                row(
                    rule.name(),
                    cache::misses(rule, day, tenants, SLOTS, requests, options.seed),
                );
            }
        }
    }
    table.print();
}

fn candidates() -> Vec<Rule> {
    let mut rules = vec![Rule::Lru, Rule::Lfu, Rule::Lfuda, Rule::Lru2];
    for ageing_uses in [32, 64, 128, 256, 512, 1_024] {
        rules.push(Rule::Halving {
            ageing_uses,
            memory: 32,
        });
    }
    for memory in [0, 4, 8, 16, 64, 1_024] {
        rules.push(Rule::Halving {
            ageing_uses: 256,
            memory,
        });
    }
    rules
}

/// Requests that arrive at a rate, whether or not earlier ones are answered.
fn open_loop(options: &Options, rules: Rules, tenants: usize, per_second: f64, day: Day) -> Results {
    let (warm_up, time) = (options.seconds(10), options.seconds(40));
    let requests = (per_second * time.as_secs_f64()) as usize;
    let mut trace = Trace::new(day, tenants, requests, options.seed);
    let arrivals = Arrivals {
        tenants: &mut trace,
        per_second,
    };
    Simulation::new(rules, tenants, 8, options.seed).run(&[], Some(arrivals), warm_up, time)
}

fn zipf(options: &Options) {
    let mut table = Table::new(
        "Zipf(1.0), open loop, 90 slots",
        &[
            "tenants",
            "day",
            "asked per s",
            "answered per s",
            "misses",
            "p99 wait ms",
            "longest ms",
        ],
        options.json,
    );
    for (tenants, rates) in [
        (300, [500.0, 1_000.0, 1_500.0, 2_000.0, 3_000.0]),
        (1_000, [250.0, 500.0, 1_000.0, 1_500.0, 2_000.0]),
        (10_000, [250.0, 500.0, 750.0, 1_000.0, 1_500.0]),
        (100_000, [250.0, 500.0, 750.0, 1_000.0, 1_500.0]),
    ] {
        let mut row = |day: Day, rate: f64| {
            let results = open_loop(options, Rules::new(SLOTS), tenants, rate, day);
            table.row(vec![
                number(tenants as f64, 0),
                text(day.name()),
                number(rate, 0),
                number(results.per_second(), 0),
                percent(results.misses()),
                number(results.p99_ms(0..tenants), 1),
                number(results.longest_ms(), 0),
            ]);
        };
        for rate in rates {
            row(Day::Steady, rate);
        }
        for day in [Day::Shift, Day::Scan, Day::Bursts] {
            row(day, rates[1]);
        }
    }
    table.print();
}

/// How the bound of pools affects the choice of connections.
fn pools(options: &Options) {
    let mut table = Table::new(
        "Zipf(1.0), open loop, 90 slots, 200 pools: which pool is closed for another one",
        &[
            "tenants",
            "asked per s",
            "pools",
            "misses",
            "times best static",
            "p99 wait ms",
        ],
        options.json,
    );
    for (tenants, rate) in [(300, 1_000.0), (1_000, 500.0), (1_000, 1_000.0), (10_000, 500.0)] {
        let (warm_up, time) = (options.seconds(10), options.seconds(40));
        let requests = (rate * time.as_secs_f64()) as usize;
        let best = cache::best_static(Day::Steady, tenants, SLOTS, requests, options.seed);
        for (name, bound) in [
            ("unbounded", Pools::UNBOUNDED),
            (
                "least recently used",
                Pools {
                    max: 200,
                    empty_first: false,
                },
            ),
            (
                "those without connections first",
                Pools {
                    max: 200,
                    empty_first: true,
                },
            ),
        ] {
            let mut trace = Trace::new(Day::Steady, tenants, requests, options.seed);
            let arrivals = Arrivals {
                tenants: &mut trace,
                per_second: rate,
            };
            let simulation = Simulation::new(Rules::new(SLOTS), tenants, 8, options.seed).with_pools(bound);
            let results = simulation.run(&[], Some(arrivals), warm_up, time);
            table.row(vec![
                number(tenants as f64, 0),
                number(rate, 0),
                text(name),
                percent(results.misses()),
                number(results.misses() / best, 3),
                number(results.p99_ms(0..tenants), 1),
            ]);
        }
    }
    table.print();
}

/// How long the choice takes to learn which tenants are popular.
fn cold(options: &Options) {
    let mut table = Table::new(
        "From a cold start: misses within so many requests, 90 slots",
        &[
            "tenants",
            "requests",
            "arbiter's rule",
            "LRU",
            "best static from the start",
        ],
        options.json,
    );
    let rules = Rules::new(SLOTS);
    let own = Rule::Halving {
        ageing_uses: rules.ageing_uses,
        memory: rules.memory,
    };
    for tenants in [300, 1_000, 10_000] {
        for requests in [1_000, 2_000, 5_000, 10_000, 50_000] {
            table.row(vec![
                number(tenants as f64, 0),
                number(requests as f64, 0),
                percent(cache::misses_after(
                    own,
                    Day::Steady,
                    tenants,
                    SLOTS,
                    requests,
                    0,
                    options.seed,
                )),
                percent(cache::misses_after(
                    Rule::Lru,
                    Day::Steady,
                    tenants,
                    SLOTS,
                    requests,
                    0,
                    options.seed,
                )),
                percent(cache::best_static(
                    Day::Steady,
                    tenants,
                    SLOTS,
                    400_000,
                    options.seed,
                )),
            ]);
        }
    }
    table.print();
}

/// Forty tenants on eight slots, each with one caller, who thinks for so long.
fn closed_loop(options: &Options, rules: Rules, think: f64) -> Results {
    let callers: Vec<Caller> = (0..40)
        .map(|tenant| Caller {
            tenant,
            sleep: Duration::ZERO,
            think: Some(think),
        })
        .collect();
    let (warm_up, time) = (options.seconds(2), options.seconds(12));
    Simulation::new(rules, 40, 8, options.seed).run(&callers, None, warm_up, time)
}

const CLOSED: &[&str] = &[
    "value ms",
    "think ms",
    "queries per s",
    "longest ms",
    "Jain",
    "connects per s",
];

fn closed_row(value: Duration, think: f64, results: &Results) -> Vec<Cell> {
    vec![
        number(ms(value), 1),
        number(think / 1e3, 1),
        number(results.per_second(), 0),
        number(results.longest_ms(), 0),
        number(results.jain(), 3),
        number(results.connects as f64 / results.seconds(), 0),
    ]
}

const THINKS: [f64; 6] = [0.0, 500.0, 2_000.0, 10_000.0, 30_000.0, 100_000.0];

fn tenure(options: &Options) {
    let mut table = Table::new(
        "Tenure: 40 tenants with one caller each, 8 slots",
        CLOSED,
        options.json,
    );
    for tenure in [5_000, 10_000, 25_000, 50_000, 100_000].map(Duration::from_micros) {
        for think in THINKS {
            let rules = Rules {
                tenure,
                ..Rules::new(8)
            };
            table.row(closed_row(tenure, think, &closed_loop(options, rules, think)));
        }
    }
    table.print();
}

fn anticipation(options: &Options) {
    let mut table = Table::new(
        "Anticipation: 40 tenants with one caller each, 8 slots",
        CLOSED,
        options.json,
    );
    for anticipation in [0, 500, 1_000, 2_000, 5_000, 10_000].map(Duration::from_micros) {
        for think in THINKS {
            let rules = Rules {
                anticipation,
                ..Rules::new(8)
            };
            table.row(closed_row(
                anticipation,
                think,
                &closed_loop(options, rules, think),
            ));
        }
    }
    table.print();
}

fn grow(options: &Options) {
    let mut table = Table::new(
        "Growth: a further connection is taken from another tenant after so long",
        &[
            "grow ms",
            "load",
            "answered per s",
            "misses",
            "p99 wait ms",
            "longest ms",
            "Jain",
        ],
        options.json,
    );
    for grow_after in [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000].map(Duration::from_micros) {
        let mut row = |load: &str, results: &Results, tenants: usize| {
            table.row(vec![
                number(ms(grow_after), 1),
                text(load),
                number(results.per_second(), 0),
                percent(results.misses()),
                number(results.p99_ms(0..tenants), 1),
                number(results.longest_ms(), 0),
                number(results.jain(), 3),
            ]);
        };
        for (load, tenants, rate) in [
            ("zipf 300", 300, 1_500.0),
            ("zipf 300 full", 300, 3_000.0),
            ("zipf 1000", 1_000, 1_000.0),
        ] {
            let rules = Rules {
                grow_after,
                ..Rules::new(SLOTS)
            };
            row(
                load,
                &open_loop(options, rules, tenants, rate, Day::Steady),
                tenants,
            );
        }
        for (load, tenants, callers, sleep) in [
            ("5 tenants x 8", 5, 8, Duration::from_millis(5)),
            ("6 tenants x 2", 6, 2, Duration::ZERO),
        ] {
            let callers: Vec<Caller> = (0..tenants * callers)
                .map(|one| Caller {
                    tenant: one % tenants,
                    sleep,
                    think: Some(0.0),
                })
                .collect();
            let rules = Rules {
                grow_after,
                ..Rules::new(8)
            };
            let (warm_up, time) = (options.seconds(2), options.seconds(12));
            let results = Simulation::new(rules, tenants, 8, options.seed).run(&callers, None, warm_up, time);
            row(load, &results, tenants);
        }
    }
    table.print();
}

/// Tenant 0 has 32 callers whose queries sleep for 20 ms; sixteen quiet ones think for a while between
/// theirs.
fn noisy(options: &Options) {
    let mut table = Table::new(
        "Noisy: 32 callers of one tenant with 20 ms each beside 16 quiet tenants, 8 slots",
        &[
            "tenure ms",
            "quiet think ms",
            "quiet p99 ms",
            "quiet per s",
            "quiet starved",
            "noisy per s",
            "noisy alone per s",
            "longest ms",
        ],
        options.json,
    );
    for tenure in [10_000, 25_000, 50_000].map(Duration::from_micros) {
        for think in [0.0, 20_000.0, 50_000.0, 100_000.0, 1_000_000.0] {
            let rules = Rules {
                tenure,
                ..Rules::new(8)
            };
            let noisy = (0..32).map(|_| Caller {
                tenant: 0,
                sleep: Duration::from_millis(20),
                think: Some(0.0),
            });
            let quiet = (1..17).map(|tenant| Caller {
                tenant,
                sleep: Duration::ZERO,
                think: Some(think),
            });
            let (warm_up, time) = (options.seconds(2), options.seconds(22));
            let callers: Vec<Caller> = noisy.clone().chain(quiet).collect();
            let both = Simulation::new(rules, 17, 8, options.seed).run(&callers, None, warm_up, time);
            let noisy: Vec<Caller> = noisy.collect();
            let alone = Simulation::new(rules, 17, 8, options.seed).run(&noisy, None, warm_up, time);
            let quiet = &both.answered[1..];
            table.row(vec![
                number(ms(tenure), 0),
                number(think / 1e3, 0),
                number(both.p99_ms(1..17), 1),
                number(quiet.iter().sum::<u64>() as f64 / both.seconds(), 0),
                number(quiet.iter().filter(|&&answered| answered == 0).count() as f64, 0),
                number(both.answered[0] as f64 / both.seconds(), 0),
                number(alone.per_second(), 0),
                number(both.longest_ms(), 0),
            ]);
        }
    }
    table.print();
}

/// All at once, with no connection open yet.
fn morning(options: &Options) {
    let mut table = Table::new(
        "Morning: all ask once at the same time, 90 slots",
        &[
            "tenants",
            "connects max",
            "all answered after ms",
            "connects",
            "ideal ms",
        ],
        options.json,
    );
    for (tenants, callers) in [(1_000, 1_000), (1, 1_000)] {
        for connects_max in [1, 2, 4, 8, 16] {
            let rules = Rules {
                connects_max,
                ..Rules::new(SLOTS)
            };
            let callers: Vec<Caller> = (0..callers)
                .map(|one| Caller {
                    tenant: one % tenants,
                    sleep: Duration::ZERO,
                    think: None,
                })
                .collect();
            let results = Simulation::new(rules, tenants, 8, options.seed).run(
                &callers,
                None,
                Duration::ZERO,
                SECOND * 60,
            );
            let connects = results.connects as f64;
            table.row(vec![
                number(tenants as f64, 0),
                number(connects_max as f64, 0),
                number(results.longest_ms(), 0),
                number(connects, 0),
                number(connects * 2_200.0 / 1e3, 0),
            ]);
        }
    }
    table.print();
}
