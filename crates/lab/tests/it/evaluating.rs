//! The database's evaluation against one of its own here, which says the same by other means: over generated
//! ranges, people and values, flags are found by trying every number that a comparator allows.

use std::collections::BTreeSet;

use jiff::{
    Span,
    civil::{Date, date},
};
use lab::{Age, RangeSex, Sex, Txn, catalogue};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{support::Lab, unmarked::own_test};

const AGES: [&str; 6] = ["P0D", "P28D", "P6M", "P2Y", "P18Y", "P65Y"];
const COMPARATORS: [Option<&str>; 5] = [None, Some("<"), Some("<="), Some(">="), Some(">")];
/// Critical low, low, high, critical high.
type Bounds = [Option<i64>; 4];

#[derive(Debug, Clone)]
struct Band {
    sex: Option<RangeSex>,
    from: Age,
    to: Option<Age>,
    bounds: Bounds,
}

#[derive(Debug, Clone)]
struct Case {
    sex: Sex,
    birth: Date,
    drawn: Date,
    value: i64,
    comparator: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
struct Evaluated {
    bounds: Bounds,
    flag: Option<String>,
    reason: Option<String>,
    may_be_critical: bool,
}

impl Band {
    fn fits(&self, case: &Case) -> bool {
        let reached = |age: Age| age.reached(case.birth).unwrap();
        case.birth <= case.drawn
            && reached(self.from) <= case.drawn
            && self.to.is_none_or(|to| case.drawn < reached(to))
    }
}

/// The number itself: beyond which bound it lies.
fn flag_of_number(twice: i64, [crit_low, low, high, crit_high]: Bounds) -> Option<&'static str> {
    let below = |bound: Option<i64>| bound.is_some_and(|bound| twice < 2 * bound);
    let above = |bound: Option<i64>| bound.is_some_and(|bound| twice > 2 * bound);
    match () {
        () if below(crit_low) => Some("LL"),
        () if above(crit_high) => Some("HH"),
        () if below(low) => Some("L"),
        () if above(high) => Some("H"),
        () => (low.is_some() || high.is_some()).then_some("N"),
    }
}

/// Every number, in halves, that the value and its comparator allow.
fn allowed(case: &Case) -> impl Iterator<Item = i64> {
    let (limit, comparator) = (2 * case.value, case.comparator);
    (-60..=60).filter(move |twice| match comparator {
        None => *twice == limit,
        Some("<") => *twice < limit,
        Some("<=") => *twice <= limit,
        Some(">=") => *twice >= limit,
        Some(_) => *twice > limit,
    })
}

fn evaluate(bands: &[Band], case: &Case) -> Evaluated {
    let row = |sex: Option<RangeSex>| bands.iter().find(|band| band.sex == sex && band.fits(case));
    let (female, male, everybody) = (row(Some(RangeSex::Female)), row(Some(RangeSex::Male)), row(None));
    let limit = |own: Option<&Band>, n: usize| {
        own.and_then(|band| band.bounds[n])
            .or_else(|| everybody.and_then(|band| band.bounds[n]))
    };
    let (usual, crit_low, crit_high) = match case.sex {
        Sex::Female | Sex::Male => {
            let own = if case.sex == Sex::Female { female } else { male };
            // What states critical limits alone says nothing of what is usual.
            let usual = own.filter(|band| band.bounds[1].is_some() || band.bounds[2].is_some());
            (usual.or(everybody).or(own), limit(own, 0), limit(own, 3))
        }
        Sex::Other | Sex::Unknown => {
            let usual = |band: &Band| (band.bounds[1], band.bounds[2]);
            let shared = female
                .zip(male)
                .filter(|(f, m)| usual(f) == usual(m))
                .map(|(f, _)| f);
            let of_either = |n| [limit(female, n), limit(male, n), limit(None, n)];
            (
                everybody.or(shared),
                of_either(0).into_iter().flatten().max(),
                of_either(3).into_iter().flatten().min(),
            )
        }
    };
    let bounds = [
        crit_low,
        usual.and_then(|band| band.bounds[1]),
        usual.and_then(|band| band.bounds[2]),
        crit_high,
    ];
    let reason = match () {
        () if usual.is_some() => None,
        () if case.drawn < case.birth => Some("collected-before-birth"),
        () if female.is_some() || male.is_some() => Some("no-range-for-sex"),
        () if !bands.is_empty() => Some("no-range-for-age"),
        () => Some("no-range-for-test"),
    };
    let flags: BTreeSet<Option<&str>> = allowed(case).map(|twice| flag_of_number(twice, bounds)).collect();
    let flag = match flags.iter().copied().collect::<Vec<_>>()[..] {
        [one] => one,
        [Some("L"), Some("LL")] => Some("L"),
        [Some("H"), Some("HH")] => Some("H"),
        _ => None,
    };
    Evaluated {
        bounds,
        flag: flag.map(str::to_owned),
        reason: reason.map(str::to_owned),
        may_be_critical: flags.contains(&Some("LL")) || flags.contains(&Some("HH")),
    }
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (
        proptest::collection::vec(0i64..12, 4),
        proptest::collection::vec(any::<bool>(), 4),
    )
        .prop_map(|(mut numbers, present)| {
            numbers.sort_unstable();
            let mut bounds: Bounds = std::array::from_fn(|n| present[n].then_some(numbers[n]));
            if bounds.iter().all(Option::is_none) {
                bounds[3] = Some(numbers[3]);
            }
            bounds
        })
}

/// For nobody, everybody, one sex and both: bands with gaps between them.
fn bands() -> impl Strategy<Value = Vec<Band>> {
    let of_one = || proptest::collection::vec(proptest::option::weighted(0.6, bounds()), AGES.len());
    let all = [None, Some(RangeSex::Female), Some(RangeSex::Male)];
    let sets = [of_one(), of_one(), of_one()];
    (sets, any::<[bool; 3]>()).prop_map(move |(sets, used)| {
        let mut bands = Vec::new();
        for ((sex, set), used) in all.iter().zip(sets).zip(used) {
            let there = set.into_iter().enumerate().filter(|_| used);
            bands.extend(there.filter_map(|(n, bounds)| {
                Some(Band {
                    sex: *sex,
                    from: Age::parse(AGES[n]).unwrap(),
                    to: AGES.get(n + 1).map(|age| Age::parse(age).unwrap()),
                    bounds: bounds?,
                })
            }));
        }
        bands
    })
}

/// People about the days on which a band begins, those born on 29 February among them.
fn case() -> impl Strategy<Value = Case> {
    let birth = prop_oneof![
        (0i32..30_000).prop_map(|days| date(1940, 1, 1).checked_add(Span::new().days(days)).unwrap()),
        Just(date(2004, 2, 29)),
        Just(date(2019, 1, 31)),
    ];
    (birth, 0..AGES.len(), -1i32..=1, 0..4usize, -1i64..13, 0..5usize).prop_map(
        |(birth, age, offset, sex, value, comparator)| Case {
            sex: Sex::ALL[sex],
            birth,
            drawn: Age::parse(AGES[age])
                .unwrap()
                .reached(birth)
                .unwrap()
                .checked_add(Span::new().days(offset))
                .unwrap(),
            value,
            comparator: COMPARATORS[comparator],
        },
    )
}

async fn insert(txn: &Txn<'_>, band: &Band) {
    let [crit_low, low, high, crit_high] = band.bounds;
    txn.execute(
        "INSERT INTO ref_range (id, test_code, sex, age_from, age_to, crit_low, low, high, crit_high)
         VALUES (gen_random_uuid(), 'OWN', $1, $2, $3, $4::bigint, $5::bigint, $6::bigint, $7::bigint)",
        &[
            &band.sex,
            &band.from.to_string(),
            &band.to.map(|age| age.to_string()),
            &crit_low,
            &low,
            &high,
            &crit_high,
        ],
    )
    .await
    .unwrap();
}

async fn by_the_database(txn: &Txn<'_>, cases: &[Case]) -> Vec<Evaluated> {
    let sexes: Vec<&str> = cases.iter().map(|case| case.sex.as_str()).collect();
    let births: Vec<Date> = cases.iter().map(|case| case.birth).collect();
    let drawn: Vec<Date> = cases.iter().map(|case| case.drawn).collect();
    let values: Vec<i64> = cases.iter().map(|case| case.value).collect();
    let comparators: Vec<Option<&str>> = cases.iter().map(|case| case.comparator).collect();
    let rows = txn
        .query(
            "SELECT e.crit_low::bigint, e.ref_low::bigint, e.ref_high::bigint, e.crit_high::bigint, e.flag, e.no_range,
                    may_be_critical(NULL, i.value, i.comparator, e.crit_low, e.crit_high)
             FROM unnest($1::text[], $2::date[], $3::date[], $4::bigint[]::numeric[], $5::text[])
                    WITH ORDINALITY AS i (sex, birth, drawn, value, comparator, n)
             CROSS JOIN LATERAL evaluation('OWN', i.sex, i.birth, i.drawn, NULL, i.value, i.comparator) AS e ORDER BY i.n",
            &[&sexes, &births, &drawn, &values, &comparators],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|row| Evaluated {
            bounds: [row.get(0), row.get(1), row.get(2), row.get(3)],
            flag: row.get(4),
            reason: row.get(5),
            may_be_critical: row.get(6),
        })
        .collect()
}

#[tokio::test]
async fn the_database_evaluates_as_the_rules_say_for_generated_ranges_people_and_values() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = (bands(), proptest::collection::vec(case(), 60));
    let mut reasons = BTreeSet::new();
    let mut flags = BTreeSet::new();
    for _ in 0..80 {
        let (bands, cases) = strategy.new_tree(&mut runner).unwrap().current();
        let txn = client.transaction().await.unwrap();
        for band in &bands {
            insert(&txn, band).await;
        }
        let found = by_the_database(&txn, &cases).await;
        for (case, found) in cases.iter().zip(&found) {
            assert_eq!(&evaluate(&bands, case), found, "{case:?} in {bands:?}");
            reasons.insert(found.reason.clone());
            flags.insert(found.flag.clone());
        }
        // What is critical for either sex is critical for somebody of whom it is not known.
        let as_sex = async |sex| {
            let cases: Vec<Case> = cases.iter().map(|case| Case { sex, ..case.clone() }).collect();
            by_the_database(&txn, &cases).await
        };
        let (female, male, unknown) = (
            as_sex(Sex::Female).await,
            as_sex(Sex::Male).await,
            as_sex(Sex::Unknown).await,
        );
        for ((female, male), unknown) in female.iter().zip(&male).zip(&unknown) {
            assert!(
                unknown.may_be_critical || !(female.may_be_critical || male.may_be_critical),
                "{female:?} {male:?} {unknown:?} in {bands:?}"
            );
        }
        txn.rollback().await.unwrap();
    }
    assert_eq!((reasons.len(), flags.len()), (5, 6), "all kinds were met");
}
