//! The report of an order: what the requester reads.
//!
//! It shows a value only once it is released; what is still open is named as open. A value that was replaced
//! after release stands beside the one that replaced it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    LabError, OrderId, Txn,
    history::{self, Revision},
    orders::{self, OrderHead},
    patients::{self, Patient},
    profile, result_view,
    result_view::ResultView,
    specimens::{self, Specimen},
};

/// A report.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The laboratory.
    pub laboratory: String,
    /// Its time zone, in which a printed report shows its times.
    pub time_zone: String,
    /// When this report was made.
    pub generated_at: Timestamp,
    /// Whether every result is final.
    pub complete: bool,
    /// The order.
    pub order: OrderHead,
    /// The patient; the one who lives on when a duplicate was merged.
    pub patient: Patient,
    /// The specimens.
    pub specimens: Vec<Specimen>,
    /// The results. Those not released yet show no value, flag or comment.
    pub results: Vec<ResultView>,
    /// Released values that were replaced since.
    pub superseded: Vec<Revision>,
    /// Names of all who signed something in it, by id.
    pub signers: BTreeMap<String, String>,
}

/// The report of an order.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn of_order(txn: &Txn<'_>, id: OrderId) -> Result<Report, LabError> {
    let order = orders::head_by_id(txn, id).await?;
    let mut patient = patients::get(txn, order.patient_id).await?;
    if let Some(into) = patient.merged_into {
        patient = patients::get(txn, into).await?;
    }
    let mut results = result_view::of_order(txn, id).await?;
    let complete = results.iter().all(|result| result.status.is_final());
    for result in &mut results {
        withhold(result);
    }
    let superseded = history::published_of_order(txn, id).await?;
    let profile = profile::get(txn).await?;
    let generated_at = txn.query_one("SELECT clock_timestamp()", &[]).await?.get(0);
    Ok(Report {
        laboratory: profile.name,
        time_zone: profile.time_zone,
        generated_at,
        complete,
        patient,
        specimens: specimens::of_order(txn, id).await?,
        signers: signers(txn, &results, &superseded).await?,
        results,
        superseded,
        order,
    })
}

/// Takes out what has not left the laboratory, and what a voided result said: its past says that it was
/// withdrawn.
fn withhold(result: &mut ResultView) {
    if result.status.is_published() {
        return;
    }
    result.value = None;
    result.comparator = None;
    result.comment = None;
    result.flag = None;
    result.no_range_reason = None;
    result.evaluation_outdated = None;
    result.critical_lifted = None;
    result.contradicted_by = Vec::new();
    result.delta = None;
}

async fn signers(
    txn: &Txn<'_>,
    results: &[ResultView],
    superseded: &[Revision],
) -> Result<BTreeMap<String, String>, LabError> {
    let mut ids: BTreeSet<Uuid> = BTreeSet::new();
    for result in results {
        ids.extend(
            [result.entered_by, result.verified_by, result.released_by]
                .into_iter()
                .flatten(),
        );
    }
    for revision in superseded {
        ids.extend(
            [revision.entered_by, revision.verified_by, revision.released_by]
                .into_iter()
                .flatten(),
        );
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let statement = txn
        .prepare_cached("SELECT id, display_name FROM staff WHERE id = ANY($1)")
        .await?;
    let rows = txn.query(&statement, &[&ids]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get::<_, Uuid>(0).to_string(), row.get(1)))
        .collect())
}
