//! The delta check: how far a value is from the same patient's previous one.
//!
//! It is made when a value is entered, and again when it is verified and released, because the previous value
//! may have been released, corrected or merged in between. What was released keeps the delta that was
//! released with it.

use std::collections::HashMap;

use rust_decimal::Decimal;

use crate::{LabError, Number, ResultId, Txn, rows::Reader};

/// By how many percent `now` differs from `before`, without sign; `None` from zero, where no percentage
/// exists.
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

/// A value that a delta check compares with the patient's previous one.
pub(crate) struct Compared {
    pub(crate) result: ResultId,
    pub(crate) value: Number,
    pub(crate) allowed_pct: Number,
}

/// What a delta check found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) previous: Number,
    pub(crate) exceeded: bool,
}

/// Compares each value with the patient's previous one of the same test: released already or among
/// `releasing`, drawn before this one and within the test's days. A value with a comparator is no number to
/// compare with. A merged duplicate is the same person. A result without a previous value has no entry.
pub(crate) async fn measure(
    txn: &Txn<'_>,
    compared: &[Compared],
    releasing: &[ResultId],
) -> Result<HashMap<ResultId, Measured>, LabError> {
    if compared.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = txn
        .prepare_cached(
            "SELECT cur.id, before.value_num
             FROM result cur
             JOIN test_def t ON t.code = cur.test_code
             JOIN specimen cs ON cs.id = cur.specimen_id
             JOIN patient me ON me.id = cur.patient_id
             CROSS JOIN LATERAL (
               SELECT p.value_num FROM result p JOIN specimen ps ON ps.id = p.specimen_id
               WHERE p.patient_id IN (SELECT x.id FROM patient x
                                      WHERE x.id IN (me.id, me.merged_into)
                                         OR x.merged_into = coalesce(me.merged_into, me.id))
                 AND p.test_code = cur.test_code AND p.id <> cur.id
                 AND (p.status IN ('released', 'corrected', 'amended') OR p.id = ANY($2))
                 AND p.value_num IS NOT NULL AND p.comparator IS NULL
                 AND coalesce(ps.collected_at, ps.received_at) <= coalesce(cs.collected_at, cs.received_at)
                 AND coalesce(ps.collected_at, ps.received_at)
                     >= coalesce(cs.collected_at, cs.received_at) - make_interval(days => t.delta_days)
               ORDER BY coalesce(ps.collected_at, ps.received_at) DESC, p.id DESC LIMIT 1) AS before
             WHERE cur.id = ANY($1)",
        )
        .await?;
    let ids: Vec<ResultId> = compared.iter().map(|compared| compared.result).collect();
    let mut previous = HashMap::with_capacity(ids.len());
    for row in &txn.query(&statement, &[&ids, &releasing]).await? {
        let row = Reader::new("result", row);
        previous.insert(row.get::<ResultId>("id")?, row.get::<Number>("value_num")?);
    }
    let measured = compared.iter().filter_map(|compared| {
        let previous = *previous.get(&compared.result)?;
        let exceeded = jumped(previous, compared.value, compared.allowed_pct.as_decimal());
        Some((compared.result, Measured { previous, exceeded }))
    });
    Ok(measured.collect())
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
