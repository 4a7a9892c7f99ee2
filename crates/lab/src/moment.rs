//! Times that a person or an instrument states.

use jiff::Timestamp;
use model::time::Moment;

use crate::{LabError, Txn, patch};

/// When something was done.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// The moment; now when absent. Not in the future, and not before the patient's birth.
    #[serde(default, deserialize_with = "patch::optional::<Moment, _, _>")]
    pub at: Option<Timestamp>,
    /// Take a time that is unlikely: collected more than three days away from the order, or more than three
    /// days on the way. Without it such a time is answered with 409 `unlikely_time`.
    #[serde(default)]
    pub confirm_unlikely: bool,
}

/// A moment that a person or an instrument states: now when absent, and never in the future. Clocks may
/// differ by minutes.
pub(crate) async fn moment(txn: &Txn<'_>, field: &str, at: Option<Timestamp>) -> Result<Timestamp, LabError> {
    let now: Timestamp = txn.query_one("SELECT clock_timestamp()", &[]).await?.get(0);
    let at = at.unwrap_or(now);
    plausible(at, now).map_err(|message| LabError::invalid(field, message))?;
    Ok(at)
}

/// Whether a stated moment can be meant.
pub(crate) fn plausible(at: Timestamp, now: Timestamp) -> Result<(), &'static str> {
    const CLOCKS_DIFFER_MAX: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
    const YEAR_1950: i64 = -631_152_000;
    if at > now.saturating_add(CLOCKS_DIFFER_MAX).unwrap_or(now) {
        Err("it lies in the future; look at the clock and the zone")
    } else if at.as_second() < YEAR_1950 {
        Err("it lies before 1950; look at the year")
    } else {
        Ok(())
    }
}
