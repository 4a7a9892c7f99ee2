//! The worklist: open results, most urgent first, and a token that tells whether it has changed.
//!
//! Screens poll it every half minute, and most of the time nothing has changed: the token is one small query, and with it
//! the server answers 304.

use jiff::{Timestamp, civil::Date};
use tokio_postgres::Row;

use crate::{
    LabError, Priority, ResultStatus, Sex, SpecimenStatus, Txn,
    critical::NOTIFIED,
    result_view::{self, ResultView},
    rows::Reader,
};

/// Most rows of the worklist: more than a section can see at once. What is past it is the least urgent.
pub const WORKLIST_ROWS_MAX: i64 = 1_000;

/// Which part of the work.
#[derive(Debug, Clone, Default)]
pub struct WorklistFilter {
    /// One section's tests.
    pub section: Option<String>,
    /// Only `pending`, `entered` or `verified`; all three when absent.
    pub status: Option<ResultStatus>,
}

/// One line of it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorklistItem {
    /// The result.
    #[serde(flatten)]
    pub result: ResultView,
    /// How soon it is wanted.
    pub priority: Priority,
    /// The order's number.
    pub accession_no: String,
    /// When it was ordered.
    pub ordered_at: Timestamp,
    /// When it is due by the test's time.
    pub due_at: Timestamp,
    /// Where its specimen stands.
    pub specimen_status: SpecimenStatus,
    /// The patient's record number.
    pub mrn: String,
    /// The patient's family name.
    pub family_name: String,
    /// The patient's given name.
    pub given_name: String,
    /// The patient's sex.
    pub sex: Sex,
    /// The patient's date of birth.
    pub birth_date: Date,
}

/// The worklist.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worklist {
    /// Its lines, most urgent first, then the longest waiting.
    pub items: Vec<WorklistItem>,
    /// Whether there is more work than lines.
    pub truncated: bool,
}

const FROM_WHERE: &str = "
    JOIN lab_order o ON o.id = r.order_id JOIN patient p ON p.id = r.patient_id
    WHERE r.open AND ($1::text IS NULL OR t.section = $1) AND ($2::text IS NULL OR r.status = $2)";

/// A token of what [`list`] would show: different whenever a line, its order, specimen, patient or test differs. It is made
/// of the rows' own versions, so it never lies, whichever transaction commits when.
///
/// # Errors
/// [`LabError::Invalid`] when the status is none of open work.
pub async fn token(txn: &Txn<'_>, filter: &WorklistFilter) -> Result<String, LabError> {
    check(filter)?;
    let statement = txn
        .prepare_cached(&format!(
            "SELECT count(*), coalesce(sum(hashtextextended(concat_ws('/', r.id, r.version, o.version, s.version, p.version, t.version,
                      {NOTIFIED}), 0)), 0)::text
             FROM result r JOIN test_def t ON t.code = r.test_code JOIN specimen s ON s.id = r.specimen_id {FROM_WHERE}"
        ))
        .await?;
    let row = txn
        .query_one(&statement, &[&filter.section, &filter.status])
        .await?;
    Ok(format!("{}.{}", row.get::<_, i64>(0), row.get::<_, String>(1)))
}

/// The worklist.
///
/// # Errors
/// [`LabError::Invalid`] when the status is none of open work.
pub async fn list(txn: &Txn<'_>, filter: &WorklistFilter) -> Result<Worklist, LabError> {
    check(filter)?;
    let select = result_view::SELECT.replacen(
        "FROM result r",
        ", o.priority, o.accession_no, o.ordered_at, o.ordered_at + make_interval(mins => t.tat_minutes) AS due_at,
           s.status AS specimen_status, p.mrn, p.family_name, p.given_name, p.sex, p.birth_date
         FROM result r",
        1,
    );
    let statement = txn
        .prepare_cached(&format!(
            "{select} {FROM_WHERE} ORDER BY array_position(ARRAY['stat', 'urgent', 'routine'], o.priority), o.ordered_at, r.id LIMIT $3"
        ))
        .await?;
    let rows = txn
        .query(
            &statement,
            &[&filter.section, &filter.status, &(WORKLIST_ROWS_MAX + 1)],
        )
        .await?;
    let mut items = rows.iter().map(item).collect::<Result<Vec<_>, _>>()?;
    let max = usize::try_from(WORKLIST_ROWS_MAX).unwrap_or(usize::MAX);
    let truncated = items.len() > max;
    items.truncate(max);
    Ok(Worklist { items, truncated })
}

fn check(filter: &WorklistFilter) -> Result<(), LabError> {
    if filter.status.is_some_and(ResultStatus::is_final) {
        return Err(LabError::invalid(
            "status",
            "the worklist holds open work; use pending, entered or verified",
        ));
    }
    Ok(())
}

fn item(row: &Row) -> Result<WorklistItem, LabError> {
    let result = result_view::view(row)?;
    let row = Reader::new("worklist", row);
    Ok(WorklistItem {
        result,
        priority: row.get("priority")?,
        accession_no: row.get("accession_no")?,
        ordered_at: row.get("ordered_at")?,
        due_at: row.get("due_at")?,
        specimen_status: row.get("specimen_status")?,
        mrn: row.get("mrn")?,
        family_name: row.get("family_name")?,
        given_name: row.get("given_name")?,
        sex: row.get("sex")?,
        birth_date: row.get("birth_date")?,
    })
}
