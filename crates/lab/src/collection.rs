//! When specimens were collected and received.
//!
//! The day of collection decides the age for which values are evaluated. So a time that cannot be is refused,
//! an unlikely one needs a confirmation, and a wrong one is corrected with a reason, which evaluates the
//! values again.

use jiff::{SignedDuration, Timestamp, civil::Date};
use model::time::Moment;

use crate::{
    Actor, LabError, OrderStatus, SpecimenStatus, Txn, audit,
    error::same_version,
    evaluation::{self, Affected},
    moment::{When, moment},
    patch,
    rows::Reader,
    schema,
    specimens::{self, Specimen},
    text::{Problems, REASON_MAX},
};

/// A stated time of collection is unlikely when it is further away than this both from the order and from
/// now, and a receipt when it is later than this after the collection.
const UNLIKELY: SignedDuration = SignedDuration::from_hours(72);

/// A correction of when a specimen was collected or received. What is absent stays.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollectionCorrection {
    /// When it was drawn.
    #[serde(default, deserialize_with = "patch::kept_as::<Moment, _, _>")]
    #[schema(value_type = Timestamp, required = false)]
    pub collected_at: Option<Timestamp>,
    /// When it came in; only of a specimen that has.
    #[serde(default, deserialize_with = "patch::kept_as::<Moment, _, _>")]
    #[schema(value_type = Timestamp, required = false)]
    pub received_at: Option<Timestamp>,
    /// Why.
    #[schema(value_type = schema::RequiredReason)]
    pub reason: String,
    /// Take a time that is unlikely, as at collection.
    #[serde(default)]
    pub confirm_unlikely: bool,
}

/// Corrects when a specimen was collected or received. What was recorded before stays readable; values from
/// it that are not released are evaluated again, and released ones that would be evaluated otherwise are
/// marked.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Version`]; [`LabError::Conflict`] `state` or `unlikely_time`;
/// [`LabError::Invalid`] for a time that cannot be, a missing reason, or when nothing changes.
pub async fn correct(
    txn: &Txn<'_>,
    actor: &Actor,
    barcode: &str,
    version: i32,
    correction: &CollectionCorrection,
) -> Result<Specimen, LabError> {
    let mut problems = Problems::default();
    let reason = problems.line("reason", &correction.reason, REASON_MAX);
    problems.done()?;
    let correctable = [
        SpecimenStatus::Collected,
        SpecimenStatus::Received,
        SpecimenStatus::Disposed,
    ];
    let before = specimens::locked(txn, barcode, &correctable).await?;
    same_version("the specimen", before.version, version)?;
    if correction.received_at.is_some() && before.received_at.is_none() {
        return Err(LabError::invalid(
            "receivedAt",
            "the specimen was not received yet",
        ));
    }
    let collected = correction.collected_at.or(before.collected_at);
    let received = correction.received_at.or(before.received_at);
    if (collected, received) == (before.collected_at, before.received_at) {
        let message = "state the right collectedAt or receivedAt; this changes neither";
        return Err(LabError::invalid("collectedAt", message));
    }
    let facts = facts(txn, &before).await?;
    for (field, at) in [
        ("collectedAt", correction.collected_at),
        ("receivedAt", correction.received_at),
    ] {
        if let Some(at) = at {
            moment(txn, field, Some(at)).await?;
            facts.possible(txn, field, at).await?;
        }
    }
    if collected.zip(received).is_some_and(|(drawn, came)| came < drawn) {
        let field = if correction.collected_at.is_some() {
            "collectedAt"
        } else {
            "receivedAt"
        };
        return Err(LabError::invalid(
            field,
            "the specimen would have been received before it was collected",
        ));
    }
    let times = Times {
        collected: collected.or(received),
        received,
        stated: true,
    };
    facts.likely(&times, correction.confirm_unlikely)?;
    let statement = txn
        .prepare_cached(
            "UPDATE specimen SET collected_at = $2, received_at = $3, change_reason = $4, changed_by = $5,
               collected_by = CASE WHEN $2::timestamptz IS NOT NULL THEN coalesce(collected_by, $5) END
             WHERE id = $1",
        )
        .await?;
    txn.execute(
        &statement,
        &[&before.id, &collected, &received, &reason, &actor.staff.as_uuid()],
    )
    .await?;
    let detail = serde_json::json!({ "reason": reason, "collectedAt": before.collected_at,
        "receivedAt": before.received_at, "confirmedUnlikely": correction.confirm_unlikely });
    audit::write(
        txn,
        actor,
        "specimen.corrected",
        "specimen",
        before.id,
        Some(detail),
    )
    .await?;
    let why = "when the specimen was collected or received was corrected";
    evaluation::again(txn, actor, Affected::Specimen(before.id), why).await?;
    specimens::get(txn, barcode).await
}

/// What the times of a specimen are compared with.
pub(crate) struct Facts {
    order_status: OrderStatus,
    ordered_at: Timestamp,
    now: Timestamp,
    /// The date of birth of the person as known now.
    born: Date,
}

/// The times of a specimen as they would be recorded.
pub(crate) struct Times {
    pub(crate) collected: Option<Timestamp>,
    pub(crate) received: Option<Timestamp>,
    /// Whether a person stated the time of collection; the server's own time is not mistyped.
    pub(crate) stated: bool,
}

pub(crate) async fn facts(txn: &Txn<'_>, specimen: &Specimen) -> Result<Facts, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT o.id, o.status, o.ordered_at, coalesce(root.birth_date, p.birth_date) AS born, clock_timestamp() AS now
             FROM lab_order o JOIN patient p ON p.id = o.patient_id LEFT JOIN patient root ON root.id = p.merged_into
             WHERE o.id = $1",
        )
        .await?;
    let row = txn.query_one(&statement, &[&specimen.order_id]).await?;
    let row = Reader::new("lab_order", &row);
    Ok(Facts {
        order_status: row.get("status")?,
        ordered_at: row.get("ordered_at")?,
        born: row.get("born")?,
        now: row.get("now")?,
    })
}

impl Facts {
    pub(crate) fn order_open(&self) -> Result<(), LabError> {
        match self.order_status {
            OrderStatus::Registered | OrderStatus::InProgress => Ok(()),
            status => Err(LabError::conflict(
                "order_closed",
                format!("the order of this specimen is {status}; nothing is drawn for it any more"),
            )),
        }
    }

    /// Refuses a time before the patient was born.
    pub(crate) async fn possible(&self, txn: &Txn<'_>, field: &str, at: Timestamp) -> Result<(), LabError> {
        let statement = txn.prepare_cached("SELECT lab_day($1)").await?;
        let day: Date = txn.query_one(&statement, &[&at]).await?.get(0);
        if day >= self.born {
            return Ok(());
        }
        let message = format!(
            "the patient was born on {}, after this; look at the time, or correct the birth date first",
            self.born
        );
        Err(LabError::invalid(field, message))
    }

    /// Asks for a confirmation of what is possible and unlikely.
    pub(crate) fn likely(&self, times: &Times, confirmed: bool) -> Result<(), LabError> {
        let far = |a: Timestamp, b: Timestamp| a.duration_since(b).abs() > UNLIKELY;
        let collected = times.collected.filter(|_| times.stated);
        let message = if let Some(at) = collected.filter(|at| far(*at, self.ordered_at) && far(*at, self.now))
        {
            format!(
                "{at} is days away from the order, which was placed at {}",
                self.ordered_at
            )
        } else if let Some((drawn, came)) = times
            .collected
            .zip(times.received)
            .filter(|(drawn, came)| far(*came, *drawn))
        {
            format!("collected at {drawn} and received at {came}, it would have been on the way for days")
        } else {
            return Ok(());
        };
        if confirmed {
            return Ok(());
        }
        Err(LabError::conflict(
            "unlikely_time",
            format!("{message}; if that is right, repeat the request with confirmUnlikely"),
        ))
    }
}

/// What the audit keeps of a confirmation.
pub(crate) fn confirmed(when: &When) -> Option<serde_json::Value> {
    when.confirm_unlikely
        .then(|| serde_json::json!({ "confirmedUnlikely": true }))
}
