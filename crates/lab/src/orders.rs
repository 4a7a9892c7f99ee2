//! Orders: what is wanted for a patient at one time, with one specimen for each kind that its tests need.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, civil::Date};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, LabError, OrderId, OrderStatus, Page, PageRequest, PatientId, Priority, ResultId, SpecimenId,
    SpecimenStatus, Txn, ValueType, accession, audit,
    catalogue::{self, Test},
    claim::claim,
    error::duplicate,
    limits::IDENTIFIER_MAX,
    order_status::lock,
    paging::Cursor,
    patients,
    reason::Reason,
    result_view,
    result_view::ResultView,
    rows::Reader,
    schema,
    specimens::{self, Specimen},
    text::{self, LINE_MAX, Line, Problems},
};

/// Most tests of one order.
pub const ORDER_TESTS_MAX: usize = 200;
// The descriptions of `NewOrder` and `AddTests` say so.
const _: () = assert!(ORDER_TESTS_MAX == 200);
const PLACER_MAX: usize = IDENTIFIER_MAX;
const DUPLICATE: &str = "this requester has an order with this placerOrderNo already";

/// An order to place.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOrder {
    /// For whom.
    pub patient_id: PatientId,
    /// How soon; `routine` when absent.
    pub priority: Option<Priority>,
    /// Who asks for it.
    #[schema(value_type = Option<schema::Line>)]
    pub requester: Option<String>,
    /// The requester's own number; unique among that requester's orders.
    #[schema(value_type = Option<schema::Identifier>)]
    pub placer_order_no: Option<String>,
    /// What the laboratory should know.
    #[schema(value_type = Option<schema::Note>)]
    pub clinical_note: Option<String>,
    /// Codes of tests and panels.
    #[schema(value_type = Vec<schema::TestCode>, min_items = 1, max_items = 200)]
    pub tests: Vec<String>,
}

/// Tests to add to an open order.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddTests {
    /// Codes of tests and panels.
    #[schema(value_type = Vec<schema::TestCode>, min_items = 1, max_items = 200)]
    pub tests: Vec<String>,
}

/// An order with all that belongs to it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The order itself.
    #[serde(flatten)]
    pub head: OrderHead,
    /// Its specimens.
    pub specimens: Vec<Specimen>,
    /// Its results.
    pub results: Vec<ResultView>,
}

/// An order without what belongs to it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderHead {
    /// Id.
    pub id: OrderId,
    /// The laboratory's number for it.
    pub accession_no: String,
    /// For whom.
    pub patient_id: PatientId,
    /// How soon.
    pub priority: Priority,
    /// Who asks for it.
    pub requester: Option<String>,
    /// The requester's own number.
    pub placer_order_no: Option<String>,
    /// What the laboratory should know.
    pub clinical_note: Option<String>,
    /// Where it stands.
    pub status: OrderStatus,
    /// Why it was called off.
    pub cancel_reason: Option<String>,
    /// Who placed it.
    pub created_by: Uuid,
    /// When.
    pub ordered_at: Timestamp,
    /// Raised by every change; the ETag.
    pub version: i32,
}

/// Which orders to list.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Of one person: of the patient and of all records merged with theirs.
    pub patient_id: Option<PatientId>,
    /// In one state.
    pub status: Option<OrderStatus>,
    /// With this accession number.
    pub accession_no: Option<String>,
    /// With this number of the requester's.
    pub placer_order_no: Option<String>,
    /// Of this requester.
    pub requester: Option<String>,
    /// Placed on this day of the laboratory's calendar.
    pub ordered_on: Option<Date>,
}

const COLUMNS: &str = "id, accession_no, patient_id, priority, requester, placer_order_no, clinical_note, status, cancel_reason, \
                       created_by, ordered_at, version";

/// Places an order: accession number, specimens with barcodes, pending results.
///
/// # Errors
/// [`LabError::NotFound`] for an unknown patient, [`LabError::Invalid`] for unknown tests and bad fields,
/// [`LabError::Conflict`] when the requester's number is known or the patient is merged.
pub async fn create(txn: &Txn<'_>, actor: &Actor, new: &NewOrder) -> Result<Order, LabError> {
    let mut problems = Problems::default();
    let requester = problems.optional_line("requester", new.requester.as_deref(), LINE_MAX);
    let placer = problems.optional_identifier("placerOrderNo", new.placer_order_no.as_deref(), PLACER_MAX);
    problems.note("clinicalNote", new.clinical_note.as_deref());
    problems.done()?;
    let patient = patients::get(txn, new.patient_id).await;
    if patient
        .map_err(|error| named(error, "patientId"))?
        .merged_into
        .is_some()
    {
        let message = "this patient is merged into another; order for that one";
        return Err(LabError::conflict("merged", message).at("patientId"));
    }
    let tests = expand(txn, &new.tests).await?;
    placer_claim(txn, requester.as_ref(), placer.as_ref()).await?;
    let id = OrderId::generate();
    let number = accession::next(txn, None).await?;
    let statement = txn
        .prepare_cached(
            "INSERT INTO lab_order (id, accession_no, patient_id, priority, requester, placer_order_no, clinical_note, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    let priority = new.priority.unwrap_or(Priority::Routine);
    txn.execute(
        &statement,
        &[
            &id,
            &number,
            &new.patient_id,
            &priority,
            &requester,
            &placer,
            &new.clinical_note,
            &actor.staff.as_uuid(),
        ],
    )
    .await
    .map_err(duplicate("lab_order_placer", DUPLICATE))?;
    attach(txn, actor, (id, &number, new.patient_id), &tests, Vec::new()).await?;
    let detail = serde_json::json!({ "tests": tests.iter().map(|t| &t.code).collect::<Vec<_>>() });
    audit::write(txn, actor, "order.placed", "order", id, Some(detail)).await?;
    get(txn, id).await
}

/// Refuses a number under which this requester has an order already, before a statement fails that holds it.
async fn placer_claim(
    txn: &Txn<'_>,
    requester: Option<&Line>,
    placer: Option<&Line>,
) -> Result<(), LabError> {
    let Some(placer) = placer else { return Ok(()) };
    let requester = requester.map_or("", Line::as_str);
    claim(txn, "lab_order_placer", &format!("{requester}\n{placer}")).await?;
    let statement = txn
        .prepare_cached(
            "SELECT EXISTS (SELECT FROM lab_order WHERE coalesce(requester, '') = $1 AND placer_order_no = $2)",
        )
        .await?;
    if txn.query_one(&statement, &[&requester, placer]).await?.get(0) {
        return Err(LabError::conflict("duplicate", DUPLICATE).at("placerOrderNo"));
    }
    Ok(())
}

/// One order with its specimens and results.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: OrderId) -> Result<Order, LabError> {
    let head = head_by_id(txn, id).await?;
    Ok(Order {
        specimens: specimens::of_order(txn, id).await?,
        results: result_view::of_order(txn, id).await?,
        head,
    })
}

/// Orders, those placed last first.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page, number or day.
pub async fn list(
    txn: &Txn<'_>,
    filter: &OrderFilter,
    page: &PageRequest,
) -> Result<Page<OrderHead>, LabError> {
    let mut problems = Problems::default();
    let number = problems.optional_identifier("accessionNo", filter.accession_no.as_deref(), LINE_MAX);
    let placer = problems.optional_identifier("placerOrderNo", filter.placer_order_no.as_deref(), LINE_MAX);
    let requester = problems.optional_line("requester", filter.requester.as_deref(), LINE_MAX);
    let (first, last) = (jiff::civil::date(1900, 1, 1), jiff::civil::date(9999, 1, 1));
    if filter.ordered_on.is_some_and(|day| day < first || day >= last) {
        problems.add("orderedOn", "it must lie between 1900 and 9998");
    }
    problems.done()?;
    let (since, after) = page
        .after_row(txn, "SELECT ordered_at FROM lab_order WHERE id = $1")
        .await?
        .unzip();
    let person = match filter.patient_id {
        Some(id) => Some(patients::person_of(txn, id).await?),
        None => None,
    };
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM lab_order
             WHERE ($1::uuid[] IS NULL OR patient_id = ANY($1)) AND ($2::text IS NULL OR status = $2) AND ($3::timestamptz IS NULL OR (ordered_at, id) < ($3, $9::uuid))
               AND ($5::text IS NULL OR accession_no = $5) AND ($6::text IS NULL OR placer_order_no = $6)
               AND ($7::text IS NULL OR requester = $7)
               AND ($8::date IS NULL OR (ordered_at >= ($8::date)::timestamp AT TIME ZONE (SELECT tz FROM lab_profile)
                                         AND ordered_at < ($8::date + 1)::timestamp AT TIME ZONE (SELECT tz FROM lab_profile)))
             ORDER BY ordered_at DESC, id DESC LIMIT $4"
        ))
        .await?;
    let rows = txn
        .query(
            &statement,
            &[
                &person,
                &filter.status,
                &since,
                &page.fetch()?,
                &number,
                &placer,
                &requester,
                &filter.ordered_on,
                &after,
            ],
        )
        .await?;
    let heads = rows.iter().map(head).collect::<Result<Vec<_>, _>>()?;
    page.page(heads, |order| {
        Cursor::Moment(order.ordered_at, order.id.as_uuid())
    })
}

/// Adds tests to an open order. They share the specimens that are there where those can still be used.
///
/// # Errors
/// [`LabError::Conflict`] when the order is closed or has the test already, [`LabError::Invalid`] for unknown
/// tests.
pub async fn add_tests(txn: &Txn<'_>, actor: &Actor, id: OrderId, add: &AddTests) -> Result<Order, LabError> {
    // A rejection of a specimen at this moment must have ended, or the new result would wait for it for ever.
    specimens::lock_all(txn, id).await?;
    lock(txn, &[id]).await?;
    let order = get(txn, id).await?;
    open(&order.head)?;
    let tests = expand(txn, &add.tests).await?;
    let has = |test: &&Test| order.results.iter().any(|r| r.code == test.code && is_live(r));
    let there: Vec<&str> = tests.iter().filter(has).map(|t| t.code.as_str()).collect();
    if let Some(first) = there.first() {
        let message = format!("the order has these tests already: {}", there.join(", "));
        // One that a panel stands for is named as the list.
        let field = (add.tests.iter().position(|code| code == first))
            .map_or_else(|| "tests".to_owned(), |index| format!("tests[{index}]"));
        return Err(LabError::conflict("duplicate", message).at(field));
    }
    attach(
        txn,
        actor,
        (id, &order.head.accession_no, order.head.patient_id),
        &tests,
        order.specimens,
    )
    .await?;
    txn.execute("UPDATE lab_order SET status = status WHERE id = $1", &[&id])
        .await?; // raises its version
    let detail = serde_json::json!({ "tests": tests.iter().map(|t| &t.code).collect::<Vec<_>>() });
    audit::write(txn, actor, "order.tests_added", "order", id, Some(detail)).await?;
    get(txn, id).await
}

/// Calls an order off, with all its open results.
///
/// # Errors
/// [`LabError::Conflict`] when it is closed already or a result has left the laboratory.
pub async fn cancel(txn: &Txn<'_>, actor: &Actor, id: OrderId, reason: &Reason) -> Result<Order, LabError> {
    let reason = text::reason(&reason.reason)?;
    // With the specimens locked no result is added, so those locked next are all there are.
    specimens::lock_all(txn, id).await?;
    txn.query(
        "SELECT id FROM result WHERE order_id = $1 ORDER BY id FOR NO KEY UPDATE",
        &[&id],
    )
    .await?;
    lock(txn, &[id]).await?;
    let order = get(txn, id).await?;
    open(&order.head)?;
    if order.results.iter().any(|r| r.status.is_published()) {
        return Err(LabError::conflict(
            "released",
            "results of this order were released; it cannot be called off any more",
        ));
    }
    let statement = txn
        .prepare_cached("UPDATE result SET status = 'cancelled', closed_reason = $2, changed_by = $3 WHERE order_id = $1 AND open")
        .await?;
    txn.execute(&statement, &[&id, &reason, &actor.staff.as_uuid()])
        .await?;
    let statement = txn
        .prepare_cached("UPDATE lab_order SET status = 'cancelled', cancel_reason = $2 WHERE id = $1")
        .await?;
    txn.execute(&statement, &[&id, &reason]).await?;
    audit::write(
        txn,
        actor,
        "order.cancelled",
        "order",
        id,
        Some(serde_json::json!({ "reason": reason })),
    )
    .await?;
    get(txn, id).await
}

pub(crate) async fn head_by_id(txn: &Txn<'_>, id: OrderId) -> Result<OrderHead, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM lab_order WHERE id = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    head(&row.ok_or_else(|| LabError::not_found("order", id))?)
}

fn open(order: &OrderHead) -> Result<(), LabError> {
    match order.status {
        OrderStatus::Registered | OrderStatus::InProgress => Ok(()),
        status => Err(LabError::conflict(
            "order_closed",
            format!("this order is {status}; place a new one"),
        )),
    }
}

/// Names the field by which a record was looked for that is not there.
fn named(error: LabError, field: &str) -> LabError {
    match error {
        LabError::NotFound { .. } => error.at(field),
        other => other,
    }
}

fn is_live(result: &ResultView) -> bool {
    !matches!(
        result.status,
        crate::ResultStatus::Cancelled | crate::ResultStatus::Voided
    )
}

/// The tests behind the codes, panels replaced by their members, each once.
async fn expand(txn: &Txn<'_>, codes: &[String]) -> Result<Vec<Test>, LabError> {
    if !(1..=ORDER_TESTS_MAX).contains(&codes.len()) {
        return Err(LabError::invalid(
            "tests",
            format!("name 1 to {ORDER_TESTS_MAX} tests"),
        ));
    }
    let named = catalogue::ordered(txn, codes).await?;
    let members: Vec<String> = named
        .values()
        .filter_map(|t| t.members.clone())
        .flatten()
        .collect();
    let members = catalogue::ordered(txn, &members).await?;
    let mut problems = Problems::default();
    let mut wanted: BTreeMap<String, Test> = BTreeMap::new();
    for (n, code) in codes.iter().enumerate() {
        let shown: String = code.chars().take(32).collect();
        let Some(test) = named.get(code) else {
            problems.add(
                format!("tests[{n}]"),
                format!("there is no test {shown:?} in the catalogue"),
            );
            continue;
        };
        let parts = match (test.value_type, &test.members) {
            (ValueType::Panel, Some(codes)) => codes.iter().filter_map(|code| members.get(code)).collect(),
            _ => vec![test],
        };
        for part in parts {
            if !test.active || !part.active {
                problems.add(
                    format!("tests[{n}]"),
                    format!("test {} is not offered any more", part.code),
                );
            }
            wanted.insert(part.code.clone(), part.clone());
        }
    }
    problems.done()?;
    Ok(wanted.into_values().collect())
}

/// Gives each test a specimen, a new one where none of those there can be used, and a pending result.
async fn attach(
    txn: &Txn<'_>,
    actor: &Actor,
    (order, number, patient): (OrderId, &str, PatientId),
    tests: &[Test],
    there: Vec<Specimen>,
) -> Result<(), LabError> {
    let mut seq = there.iter().map(|s| s.seq).max().unwrap_or(0);
    let usable = |s: &Specimen| !matches!(s.status, SpecimenStatus::Rejected | SpecimenStatus::Disposed);
    let mut of_type: BTreeMap<String, SpecimenId> = there
        .into_iter()
        .filter(usable)
        .map(|s| (s.specimen_type, s.id))
        .collect();
    let needed: BTreeSet<&String> = tests.iter().map(|t| &t.specimen_type).collect();
    for specimen_type in needed {
        if !of_type.contains_key(specimen_type) {
            seq += 1;
            let id = specimens::expect(txn, order, number, seq, specimen_type, None).await?;
            of_type.insert(specimen_type.clone(), id);
        }
    }
    let ids: Vec<ResultId> = tests.iter().map(|_| ResultId::generate()).collect();
    let codes: Vec<&str> = tests.iter().map(|t| t.code.as_str()).collect();
    let specimens: Vec<Option<SpecimenId>> = tests
        .iter()
        .map(|t| of_type.get(&t.specimen_type).copied())
        .collect();
    let statement = txn
        .prepare_cached(
            "INSERT INTO result (id, order_id, patient_id, specimen_id, test_code, changed_by)
             SELECT u.id, $1, $2, u.specimen, u.code, $3 FROM unnest($4::uuid[], $5::uuid[], $6::text[]) AS u (id, specimen, code)",
        )
        .await?;
    txn.execute(
        &statement,
        &[&order, &patient, &actor.staff.as_uuid(), &ids, &specimens, &codes],
    )
    .await?;
    Ok(())
}

fn head(row: &Row) -> Result<OrderHead, LabError> {
    let row = Reader::new("lab_order", row);
    Ok(OrderHead {
        id: row.get("id")?,
        accession_no: row.get("accession_no")?,
        patient_id: row.get("patient_id")?,
        priority: row.get("priority")?,
        requester: row.get("requester")?,
        placer_order_no: row.get("placer_order_no")?,
        clinical_note: row.get("clinical_note")?,
        status: row.get("status")?,
        cancel_reason: row.get("cancel_reason")?,
        created_by: row.get("created_by")?,
        ordered_at: row.get("ordered_at")?,
        version: row.get("version")?,
    })
}
