//! How a value is judged: which range holds for the patient, which flag follows, and whether the value jumped.
//!
//! Pure, so that a table and a property can test it, and so that one value at the screen and thousands from a file are
//! judged by the same lines. It refuses to guess: no range, no flag; an uncertain flag is no flag. That an uncertain value may
//! be critical is not lost by that: `may_be_critical` in the database demands the notice for it all the same.

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;

use crate::{Age, Comparator, Flag, Number, RangeId, Sex};

/// A reference range as it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// Its id, kept with every result that it judges.
    pub id: RangeId,
    /// Only for this sex; for everybody when absent.
    pub sex: Option<Sex>,
    /// From this age on.
    pub age_from: Age,
    /// Until just before this age; without end when absent.
    pub age_to: Option<Age>,
    /// Its bounds.
    pub bounds: Bounds,
    /// From this moment on.
    pub valid_from: Timestamp,
    /// Until just before this moment.
    pub valid_to: Option<Timestamp>,
}

/// The bounds of a range. A value equal to a bound is inside it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Lowest usual value.
    pub low: Option<Number>,
    /// Highest usual value.
    pub high: Option<Number>,
    /// Below it somebody must be told.
    pub crit_low: Option<Number>,
    /// Above it somebody must be told.
    pub crit_high: Option<Number>,
}

/// Whom a range must fit, and when.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The patient's sex.
    pub sex: Sex,
    /// The patient's date of birth.
    pub birth: Date,
    /// The day the specimen was drawn, on the laboratory's calendar.
    pub on: Date,
    /// The moment of judging, for the range's validity.
    pub at: Timestamp,
}

/// The range that holds for the subject: one for the sex before one for everybody, then the one that begins at the
/// higher age, then the newest.
#[must_use]
pub fn choose<'a>(ranges: &'a [Range], subject: &Subject) -> Option<&'a Range> {
    ranges
        .iter()
        .filter(|range| fits(range, subject))
        .max_by_key(|range| {
            (
                range.sex.is_some(),
                range.age_from.reached(subject.birth),
                range.valid_from,
                range.id,
            )
        })
}

fn fits(range: &Range, subject: &Subject) -> bool {
    let of_sex = range.sex.is_none_or(|sex| sex == subject.sex);
    let old_enough = range
        .age_from
        .reached(subject.birth)
        .is_some_and(|day| day <= subject.on);
    let young_enough = range
        .age_to
        .is_none_or(|age| age.reached(subject.birth).is_none_or(|day| subject.on < day));
    let valid = range.valid_from <= subject.at && range.valid_to.is_none_or(|end| subject.at < end);
    // A birth after the specimen was drawn is a mistake somewhere: nothing is certain then.
    of_sex && old_enough && young_enough && valid && subject.birth <= subject.on
}

/// One end of what a value may be: the number itself, or everything just beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Lowest,
    JustBelow(Decimal),
    At(Decimal),
    JustAbove(Decimal),
    Highest,
}

impl End {
    fn below(self, bound: Decimal) -> bool {
        match self {
            Self::Lowest => true,
            Self::JustBelow(value) => value <= bound,
            Self::At(value) | Self::JustAbove(value) => value < bound,
            Self::Highest => false,
        }
    }

    fn above(self, bound: Decimal) -> bool {
        match self {
            Self::Highest => true,
            Self::JustAbove(value) => value >= bound,
            Self::At(value) | Self::JustBelow(value) => value > bound,
            Self::Lowest => false,
        }
    }
}

/// The flag of a value. With a comparator the value is every number it allows, and the flag is given only when it is the
/// same for all of them. `<30` under a low bound of 150 and a critical one of 20 is certainly low and perhaps critical: it
/// is flagged low, which is true of all of it.
#[must_use]
pub fn flag(value: Number, comparator: Option<Comparator>, bounds: &Bounds) -> Option<Flag> {
    let value = value.as_decimal();
    let (from, to) = match comparator {
        None => (End::At(value), End::At(value)),
        Some(Comparator::Less) => (End::Lowest, End::JustBelow(value)),
        Some(Comparator::AtMost) => (End::Lowest, End::At(value)),
        Some(Comparator::AtLeast) => (End::At(value), End::Highest),
        Some(Comparator::More) => (End::JustAbove(value), End::Highest),
    };
    match (step(from, bounds), step(to, bounds)) {
        (a, b) if a == b => a,
        (Some(Flag::CriticalLow), Some(Flag::Low)) => Some(Flag::Low),
        (Some(Flag::High), Some(Flag::CriticalHigh)) => Some(Flag::High),
        _ => None,
    }
}

fn step(end: End, bounds: &Bounds) -> Option<Flag> {
    let below = |bound: Option<Number>| bound.is_some_and(|b| end.below(b.as_decimal()));
    let above = |bound: Option<Number>| bound.is_some_and(|b| end.above(b.as_decimal()));
    if below(bounds.crit_low) {
        Some(Flag::CriticalLow)
    } else if above(bounds.crit_high) {
        Some(Flag::CriticalHigh)
    } else if below(bounds.low) {
        Some(Flag::Low)
    } else if above(bounds.high) {
        Some(Flag::High)
    } else {
        (bounds.low.is_some() || bounds.high.is_some()).then_some(Flag::Normal)
    }
}

/// By how many percent `now` differs from `before`, without sign; `None` from zero, where no percentage exists.
#[must_use]
pub fn change_pct(before: Number, now: Number) -> Option<Decimal> {
    let (before, now) = (before.as_decimal(), now.as_decimal());
    let share = now.checked_sub(before)?.checked_div(before)?;
    share.abs().checked_mul(Decimal::ONE_HUNDRED)
}

/// Whether a change is larger than the test allows. From zero, any change is.
#[must_use]
pub fn jumped(before: Number, now: Number, allowed_pct: Decimal) -> bool {
    change_pct(before, now).map_or(before != now, |pct| pct > allowed_pct)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    fn bounds(low: &str, high: &str, crit_low: &str, crit_high: &str) -> Bounds {
        let some = |text: &str| (!text.is_empty()).then(|| n(text));
        Bounds {
            low: some(low),
            high: some(high),
            crit_low: some(crit_low),
            crit_high: some(crit_high),
        }
    }

    #[test]
    fn a_value_equal_to_a_bound_is_inside_it() {
        let potassium = bounds("3.5", "5.0", "2.5", "6.5");
        let expected = [
            ("2.4", "LL"),
            ("2.5", "L"),
            ("3.4", "L"),
            ("3.5", "N"),
            ("5.0", "N"),
            ("5.00", "N"),
            ("5.01", "H"),
            ("6.5", "H"),
            ("6.6", "HH"),
        ];
        for (value, word) in expected {
            assert_eq!(
                flag(n(value), None, &potassium).unwrap().as_str(),
                word,
                "{value}"
            );
        }
        assert_eq!(
            flag(n("4"), None, &bounds("", "", "2.5", "6.5")),
            None,
            "only critical limits say nothing of normal"
        );
    }

    #[test]
    fn a_comparator_flags_only_what_is_certain() {
        use Comparator::{AtLeast, AtMost, Less, More};
        let upper = bounds("", "5", "", "");
        let both = bounds("150", "450", "20", "1000");
        let cases = [
            (Less, "5", &upper, Some("N")),
            (AtMost, "5", &upper, Some("N")),
            (Less, "5.1", &upper, None),
            (More, "5", &upper, Some("H")),
            (AtLeast, "5", &upper, None),
            (Less, "150", &both, Some("L")),
            (AtMost, "150", &both, None),
            (Less, "30", &both, Some("L")),
            (Less, "20", &both, Some("LL")),
            (AtMost, "20", &both, Some("L")),
            (More, "450", &both, Some("H")),
            (More, "1000", &both, Some("HH")),
            (AtLeast, "1000", &both, Some("H")),
            (Less, "400", &both, None),
            (More, "200", &both, None),
        ];
        for (comparator, value, bounds, expected) in cases {
            let got = flag(n(value), Some(comparator), bounds).map(Flag::as_str);
            assert_eq!(got, expected, "{comparator}{value} in {bounds:?}");
        }
    }

    proptest! {
        /// What a comparator's flag claims holds for every single value that the comparator allows.
        #[test]
        fn an_uncertain_flag_is_never_given(
            limit in 0i64..100, other in 0i64..100, raw in proptest::collection::vec(proptest::option::of(0i64..100), 4), which in 0usize..4,
        ) {
            let number = |v: i64| n(&v.to_string());
            let mut sorted: Vec<i64> = raw.iter().flatten().copied().collect();
            sorted.sort_unstable();
            let mut next = sorted.into_iter();
            let mut take = |present: bool| if present { next.next().map(number) } else { None };
            let (crit_low, low, high, crit_high) =
                (take(raw[0].is_some()), take(raw[1].is_some()), take(raw[2].is_some()), take(raw[3].is_some()));
            let bounds = Bounds { low, high, crit_low, crit_high };
            let comparator = Comparator::ALL[which];
            let allowed = match comparator {
                Comparator::Less => other < limit,
                Comparator::AtMost => other <= limit,
                Comparator::AtLeast => other >= limit,
                Comparator::More => other > limit,
            };
            if let (true, Some(claimed)) = (allowed, flag(number(limit), Some(comparator), &bounds)) {
                let actual = flag(number(other), None, &bounds).unwrap();
                let holds = claimed == actual
                    || (claimed, actual) == (Flag::Low, Flag::CriticalLow)
                    || (claimed, actual) == (Flag::High, Flag::CriticalHigh);
                prop_assert!(holds, "{comparator}{limit} claimed {claimed}, but {other} is {actual} in {bounds:?}");
            }
        }
    }

    fn range(id: u128, sex: Option<Sex>, from: &str, to: Option<&str>) -> Range {
        Range {
            id: RangeId::from(uuid::Uuid::from_u128(id)),
            sex,
            age_from: Age::parse(from).unwrap(),
            age_to: to.map(|t| Age::parse(t).unwrap()),
            bounds: bounds("1", "2", "", ""),
            valid_from: Timestamp::UNIX_EPOCH,
            valid_to: None,
        }
    }

    #[test]
    fn the_range_for_the_sex_and_the_exact_age_is_chosen() {
        let ranges = [
            range(1, None, "P0D", Some("P28D")),
            range(2, None, "P28D", Some("P18Y")),
            range(3, None, "P18Y", None),
            range(4, Some(Sex::Female), "P18Y", None),
        ];
        let chosen = |sex, birth, on| {
            let subject = Subject {
                sex,
                birth,
                on,
                at: Timestamp::MAX,
            };
            choose(&ranges, &subject).map(|r| r.id.as_uuid().as_u128())
        };
        let born = date(2004, 2, 29);
        assert_eq!(chosen(Sex::Male, born, date(2004, 2, 29)), Some(1));
        assert_eq!(chosen(Sex::Male, born, date(2004, 3, 27)), Some(1));
        assert_eq!(
            chosen(Sex::Male, born, date(2004, 3, 28)),
            Some(2),
            "28 days are half-open"
        );
        assert_eq!(chosen(Sex::Male, born, date(2022, 2, 27)), Some(2));
        assert_eq!(chosen(Sex::Male, born, date(2022, 2, 28)), Some(3));
        assert_eq!(chosen(Sex::Female, born, date(2022, 2, 28)), Some(4));
        assert_eq!(
            chosen(Sex::Other, born, date(2030, 1, 1)),
            Some(3),
            "only what holds for everybody"
        );
        assert_eq!(
            chosen(Sex::Male, born, date(2004, 2, 28)),
            None,
            "drawn before birth"
        );
    }

    #[test]
    fn a_closed_range_judges_nothing_any_more() {
        let mut closed = range(1, None, "P0D", None);
        closed.valid_to = Some(Timestamp::from_second(1_000).unwrap());
        let subject = |at| Subject {
            sex: Sex::Male,
            birth: date(1980, 1, 1),
            on: date(2020, 1, 1),
            at,
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(choose(std::slice::from_ref(&closed), &subject(at(999))).is_some());
        assert!(choose(std::slice::from_ref(&closed), &subject(at(1_000))).is_none());
    }

    #[test]
    fn a_jump_is_more_than_the_allowed_percentage() {
        let allowed = Decimal::from(50);
        assert!(!jumped(n("4.0"), n("6.0"), allowed), "exactly 50% is allowed");
        assert!(jumped(n("4.0"), n("6.1"), allowed));
        assert!(jumped(n("4.0"), n("1.9"), allowed));
        assert!(
            jumped(n("0"), n("0.1"), allowed),
            "from zero any change is a jump"
        );
        assert!(!jumped(n("0"), n("0.0"), allowed));
        let huge = n("999999999999999.999999999");
        assert!(jumped(n("0.000000001"), huge, allowed));
    }
}
