//! The worklist: open results, most urgent first, and a token that tells whether it has changed.
//!
//! Screens poll it every half minute, and most of the time nothing has changed: the token is one small query,
//! and with it the server answers 304.

use jiff::{Timestamp, civil::Date};
use tokio_postgres::Row;

use crate::{
    LabError, Page, PageRequest, Priority, ResultStatus, Sex, SpecimenStatus, Txn,
    critical::NOTIFIED,
    paging::Cursor,
    result_view::{self, ResultView},
    rows::Reader,
};

/// Most rows of a page, and the default: a section's whole work on most days.
pub const WORKLIST_ROWS_MAX: u32 = 1_000;

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

/// A page of the worklist.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worklist {
    /// Its lines, most urgent first, then the longest waiting.
    pub items: Vec<WorklistItem>,
    /// Where the next page starts; absent on the last one. Opaque: pass it back as it is.
    pub next: Option<String>,
}

/// A place on the list that does not move while results come and go.
const PLACE: &str = "array_position(ARRAY['stat', 'urgent', 'routine'], o.priority), o.ordered_at, r.id";

const FROM_WHERE: &str = "
    JOIN lab_order o ON o.id = r.order_id JOIN patient p ON p.id = r.patient_id
    WHERE r.open AND ($1::text IS NULL OR t.section = $1) AND ($2::text IS NULL OR r.status = $2)";

/// A token of what [`list`] would show: different whenever a line, its order, specimen, patient or test
/// differs. It is made of the rows' own versions, so it never lies, whichever transaction commits when.
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

/// A page of the worklist. Its rows are as they are now: what became urgent meanwhile is on the first page.
///
/// # Errors
/// [`LabError::Invalid`] when the status is none of open work, or for a bad page.
pub async fn list(txn: &Txn<'_>, filter: &WorklistFilter, page: &PageRequest) -> Result<Worklist, LabError> {
    check(filter)?;
    let rows = page.rows_of(WORKLIST_ROWS_MAX, WORKLIST_ROWS_MAX)?;
    let (rank, since, id) = match page.after_work()? {
        Some((rank, since, id)) => (Some(rank), Some(since), Some(id)),
        None => (None, None, None),
    };
    let select = result_view::SELECT.replacen(
        "FROM result r",
        ", o.priority, o.accession_no, o.ordered_at, o.ordered_at + make_interval(mins => t.tat_minutes) AS due_at,
           s.status AS specimen_status, p.mrn, p.family_name, p.given_name, p.sex, p.birth_date
         FROM result r",
        1,
    );
    let statement = txn
        .prepare_cached(&format!(
            "{select} {FROM_WHERE} AND ($3::int IS NULL OR ({PLACE}) > ($3::int, $4::timestamptz, $5::uuid)) ORDER BY {PLACE} LIMIT $6"
        ))
        .await?;
    let fetch = i64::from(rows) + 1;
    let found = txn
        .query(
            &statement,
            &[&filter.section, &filter.status, &rank, &since, &id, &fetch],
        )
        .await?;
    let items = found.iter().map(item).collect::<Result<Vec<_>, _>>()?;
    let Page { items, next } = Page::cut(items, rows, |item: &WorklistItem| {
        Cursor::Work(rank_of(item.priority), item.ordered_at, item.result.id.as_uuid())
    });
    Ok(Worklist { items, next })
}

/// Where a priority stands in [`PLACE`]'s array, from 1.
const fn rank_of(priority: Priority) -> i32 {
    match priority {
        Priority::Stat => 1,
        Priority::Urgent => 2,
        Priority::Routine => 3,
    }
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
