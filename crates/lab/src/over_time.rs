//! The results of one person over time, those drawn last first, from all records that were merged.

use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    LabError, Page, PageRequest, PatientId, Txn,
    paging::Cursor,
    patients,
    result_view::{self, ResultView},
    rows::Reader,
    text::{LINE_MAX, Problems},
};

/// Which results of a patient are wanted.
#[derive(Debug, Clone, Default)]
pub struct TimeFilter {
    /// Of one test.
    pub code: Option<String>,
    /// Those without a released value, too: open ones, cancelled ones and voided ones.
    pub open: bool,
}

/// One result in a patient's history.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimedResult {
    /// The result.
    #[serde(flatten)]
    pub result: ResultView,
    /// When its specimen was drawn: collected, or else received; absent before.
    pub drawn_at: Option<Timestamp>,
    /// Where it stands in time: when it was drawn, or else ordered.
    pub at: Timestamp,
    /// The number of its order.
    pub accession_no: String,
}

/// A page of a patient's results.
///
/// # Errors
/// [`LabError::NotFound`] for an unknown patient; [`LabError::Invalid`] for a bad page or code.
pub async fn of_patient(
    txn: &Txn<'_>,
    id: PatientId,
    filter: &TimeFilter,
    page: &PageRequest,
) -> Result<Page<TimedResult>, LabError> {
    let mut problems = Problems::default();
    let code = problems.optional_identifier("code", filter.code.as_deref(), LINE_MAX);
    problems.done()?;
    let person = patients::person_of(txn, id).await?;
    if person.is_empty() {
        return Err(LabError::not_found("patient", id));
    }
    let (since, after) = page.after_moment()?.unzip();
    let select = result_view::SELECT.replacen(
        "FROM result r",
        ", coalesce(s.collected_at, s.received_at) AS drawn_at, o.accession_no,
           coalesce(s.collected_at, s.received_at, o.ordered_at) AS in_time
         FROM result r",
        1,
    );
    let statement = txn
        .prepare_cached(&format!(
            "{select} JOIN lab_order o ON o.id = r.order_id
             WHERE r.patient_id = ANY($1) AND ($2::text IS NULL OR r.test_code = $2)
               AND ($3 OR r.status IN ('released', 'corrected', 'amended'))
               AND ($4::timestamptz IS NULL OR (coalesce(s.collected_at, s.received_at, o.ordered_at), r.id) < ($4::timestamptz, $5::uuid))
             ORDER BY in_time DESC, r.id DESC LIMIT $6"
        ))
        .await?;
    let rows = txn
        .query(
            &statement,
            &[&person, &code, &filter.open, &since, &after, &page.fetch()?],
        )
        .await?;
    let results = rows.iter().map(timed).collect::<Result<Vec<_>, _>>()?;
    page.page(results, |timed| {
        Cursor::Moment(timed.at, timed.result.id.as_uuid())
    })
}

fn timed(row: &Row) -> Result<TimedResult, LabError> {
    let result = result_view::view(row)?;
    let row = Reader::new("result", row);
    Ok(TimedResult {
        result,
        drawn_at: row.get("drawn_at")?,
        at: row.get("in_time")?,
        accession_no: row.get("accession_no")?,
    })
}
