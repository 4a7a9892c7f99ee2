//! How far a value is from the person's previous one. Pure, so that a table can test it.

use rust_decimal::Decimal;

use crate::Number;

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

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap()
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
