//! Patients: registered, found, corrected, and merged when one person was registered twice.

use jiff::{Timestamp, civil::Date};
use model::{text::TextError, time::Day};
use tokio_postgres::{Row, types::Json};

use crate::{
    Actor, LabError, Page, PageRequest, PatientId, Sex, Txn, audit,
    claim::claim,
    error::{duplicate, same_version},
    evaluation::{self, Affected},
    limits::IDENTIFIER_MAX,
    paging::Cursor,
    patch,
    reason::Reason,
    rows::Reader,
    schema,
    text::{self, LINE_MAX, Line, Problems, like_prefix, search_key},
};

const NATIONAL_ID_MAX: usize = IDENTIFIER_MAX;
/// Most characters of a search.
pub const SEARCH_CHARS_MAX: usize = 100;
/// The constraint, and the lock under which a number is taken (also by the database's own guard).
const NUMBER: &str = "patient_national_id";
const DUPLICATE: &str = "a patient with this nationalId is registered already; find that one instead";

/// A patient to register.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewPatient {
    /// National or insurance number; unique among the patients who have one.
    #[schema(value_type = Option<schema::Identifier>)]
    pub national_id: Option<String>,
    /// Family name, as typed but for blanks and invisible characters at its ends and doubled blanks.
    #[schema(value_type = schema::Line)]
    pub family_name: String,
    /// Given name, likewise.
    #[schema(value_type = schema::Line)]
    pub given_name: String,
    /// Sex, for reference ranges.
    pub sex: Sex,
    /// Date of birth.
    #[serde(deserialize_with = "patch::given::<Day, _, _>")]
    pub birth_date: Date,
}

/// A change to a patient; what is absent stays, and null takes the national number away.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatientPatch {
    /// National or insurance number.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<schema::Identifier>)]
    pub national_id: Option<Option<String>>,
    /// Family name.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Line, required = false)]
    pub family_name: Option<String>,
    /// Given name.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Line, required = false)]
    pub given_name: Option<String>,
    /// Sex. Results that are not released are evaluated again; released ones that would be evaluated
    /// otherwise are marked.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = Sex, required = false)]
    pub sex: Option<Sex>,
    /// Date of birth; as for sex. Not after a specimen was collected.
    #[serde(default, deserialize_with = "patch::kept_as::<Day, _, _>")]
    #[schema(value_type = Date, required = false)]
    pub birth_date: Option<Date>,
}

/// Which patient lives on.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatientMerge {
    /// The patient to keep.
    pub into: PatientId,
    /// Why they are the same person.
    #[schema(value_type = schema::RequiredReason)]
    pub reason: String,
}

/// A patient.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Patient {
    /// Id.
    pub id: PatientId,
    /// Medical record number, given by the laboratory.
    pub mrn: String,
    /// National or insurance number.
    pub national_id: Option<String>,
    /// Family name.
    pub family_name: String,
    /// Given name.
    pub given_name: String,
    /// Sex.
    pub sex: Sex,
    /// Date of birth.
    pub birth_date: Date,
    /// The patient who lives on, when this one turned out to be a duplicate.
    pub merged_into: Option<PatientId>,
    /// When it was merged.
    pub merged_at: Option<Timestamp>,
    /// The duplicates that were merged into this patient, with what they are known by; the latest merge
    /// first.
    pub merged_records: Vec<MergedRecord>,
    /// In a list: the merged duplicate by which the patient was found; absent when it was by the patient's
    /// own data.
    pub found_by: Option<PatientId>,
    /// Since when.
    pub created_at: Timestamp,
    /// Raised by every change; the ETag.
    pub version: i32,
}

/// A duplicate that was merged into a patient.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergedRecord {
    /// Its id.
    pub id: PatientId,
    /// Its medical record number.
    pub mrn: String,
    /// Its national or insurance number.
    pub national_id: Option<String>,
    /// Its family name.
    pub family_name: String,
    /// Its given name.
    pub given_name: String,
    /// When it was merged.
    pub merged_at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct PatientSearch {
    /// The beginning of names (accents and case do not matter), or a whole record or national number.
    pub q: Option<String>,
    /// Date of birth.
    pub birth_date: Option<Date>,
}

const COLUMNS: &str = "p.id, p.mrn, p.national_id, p.family_name, p.given_name, p.sex, p.birth_date, p.merged_into, p.merged_at, \
                       p.created_at, p.version, \
                       (SELECT jsonb_agg(jsonb_build_object('id', m.id, 'mrn', m.mrn, 'nationalId', m.national_id, \
                          'familyName', m.family_name, 'givenName', m.given_name, 'mergedAt', m.merged_at, 'reason', m.merge_reason) \
                          ORDER BY m.merged_at DESC, m.id) \
                        FROM patient m WHERE m.merged_into = p.id) AS merged_records";

/// Registers a patient.
///
/// # Errors
/// [`LabError::Conflict`] `duplicate` when the national number is known, [`LabError::Invalid`] for bad
/// fields.
pub async fn create(txn: &Txn<'_>, actor: &Actor, new: &NewPatient) -> Result<Patient, LabError> {
    let mut problems = Problems::default();
    let national_id = problems.optional_identifier("nationalId", new.national_id.as_deref(), NATIONAL_ID_MAX);
    let family = problems.line("familyName", &new.family_name, LINE_MAX);
    let given = problems.line("givenName", &new.given_name, LINE_MAX);
    birth_date_check(txn, &mut problems, new.birth_date).await?;
    problems.done()?;
    let id = PatientId::generate();
    if let Some(number) = &national_id {
        number_claim(txn, number, id).await?;
    }
    let statement = txn
        .prepare_cached(
            "INSERT INTO patient (id, mrn, national_id, family_name, given_name, family_key, given_key, sex, birth_date)
             VALUES ($1, (SELECT 'P' || lpad(n, greatest(7, length(n)), '0') FROM (SELECT nextval('patient_mrn_seq')::text AS n) AS next), $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    let (family_key, given_key) = (search_key(&family), search_key(&given));
    txn.execute(
        &statement,
        &[
            &id,
            &national_id,
            &family,
            &given,
            &family_key,
            &given_key,
            &new.sex,
            &new.birth_date,
        ],
    )
    .await
    .map_err(duplicate(NUMBER, DUPLICATE))?;
    audit::write(txn, actor, "patient.registered", "patient", id, None).await?;
    get(txn, id).await
}

/// One patient.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: PatientId) -> Result<Patient, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, NULL::uuid AS found_by FROM patient p WHERE p.id = $1"
        ))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    patient(&row.ok_or_else(|| LabError::not_found("patient", id))?)
}

/// Patients, those registered last first. What is known of a merged duplicate finds the patient who lives on.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page or search.
pub async fn search(
    txn: &Txn<'_>,
    search: &PatientSearch,
    page: &PageRequest,
) -> Result<Page<Patient>, LabError> {
    // A search for blanks alone lists all patients.
    let q = match &search.q {
        Some(q) => match model::text::line(q, SEARCH_CHARS_MAX) {
            Ok(q) => Some(q),
            Err(TextError::Empty) => None,
            Err(error) => return Err(LabError::invalid("q", format!("it {error}"))),
        },
        None => None,
    };
    let q = q.as_deref();
    if let Some(birth_date) = search.birth_date {
        // Nobody was born then, and PostgreSQL does not even know every date that can be written.
        let mut problems = Problems::default();
        birth_date_check(txn, &mut problems, birth_date).await?;
        problems.done()?;
    }
    if q.is_none() && search.birth_date.is_none() {
        return all(txn, page).await;
    }
    // "Ada Byron" and "Byron Ada" both mean her: the last word alone stands for one name, the others for the
    // other.
    let (since, after) = page.after_row(txn, REGISTERED_AT).await?.unzip();
    let key = q.map(search_key);
    let whole = key.as_deref().map(like_prefix);
    let split = key.as_deref().and_then(|key| key.rsplit_once(' '));
    let (first, last) = (
        split.map(|(first, _)| like_prefix(first)),
        split.map(|(_, last)| like_prefix(last)),
    );
    let statement = txn
        .prepare_cached(&format!(
            "WITH hit AS (
               SELECT coalesce(h.merged_into, h.id) AS person, h.id FROM patient h
               WHERE ($1::text IS NULL OR h.mrn = $1 OR h.national_id = $1 OR h.family_key LIKE $2 OR h.given_key LIKE $2
                      OR (h.family_key LIKE $3 AND h.given_key LIKE $4) OR (h.given_key LIKE $3 AND h.family_key LIKE $4))
                 AND ($5::date IS NULL OR h.birth_date = $5)
             ), found AS (
               SELECT DISTINCT ON (person) person, NULLIF(id, person) AS found_by FROM hit
               ORDER BY person DESC, (id = person) DESC, id DESC
             )
             SELECT {COLUMNS}, f.found_by FROM found f JOIN patient p ON p.id = f.person
             WHERE $6::timestamptz IS NULL OR (p.created_at, p.id) < ($6, $7::uuid)
             ORDER BY p.created_at DESC, p.id DESC LIMIT $8"
        ))
        .await?;
    let rows = txn
        .query(
            &statement,
            &[
                &q,
                &whole,
                &first,
                &last,
                &search.birth_date,
                &since,
                &after,
                &page.fetch()?,
            ],
        )
        .await?;
    let patients = rows.iter().map(patient).collect::<Result<Vec<_>, _>>()?;
    page.page(patients, place)
}

/// Where a patient stands in a list.
fn place(patient: &Patient) -> Cursor {
    Cursor::Moment(patient.created_at, patient.id.as_uuid())
}

const REGISTERED_AT: &str = "SELECT created_at FROM patient WHERE id = $1";

/// Everybody, without a search: read along an index.
async fn all(txn: &Txn<'_>, page: &PageRequest) -> Result<Page<Patient>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, NULL::uuid AS found_by FROM patient p
             WHERE p.merged_into IS NULL AND ($1::timestamptz IS NULL OR (p.created_at, p.id) < ($1, $2::uuid))
             ORDER BY p.created_at DESC, p.id DESC LIMIT $3"
        ))
        .await?;
    let (since, after) = page.after_row(txn, REGISTERED_AT).await?.unzip();
    let rows = txn.query(&statement, &[&since, &after, &page.fetch()?]).await?;
    let patients = rows.iter().map(patient).collect::<Result<Vec<_>, _>>()?;
    page.page(patients, place)
}

/// Corrects a patient's data. A correction that changes nothing writes nothing.
///
/// # Errors
/// [`LabError::Version`] when the row has changed since it was read, [`LabError::Conflict`] for a known
/// national number or a merged patient.
pub async fn update(
    txn: &Txn<'_>,
    actor: &Actor,
    id: PatientId,
    version: i32,
    patch: &PatientPatch,
) -> Result<Patient, LabError> {
    let mut problems = Problems::default();
    let national_id = problems.optional_identifier(
        "nationalId",
        patch.national_id.as_ref().and_then(Option::as_deref),
        NATIONAL_ID_MAX,
    );
    let family = problems.optional_line("familyName", patch.family_name.as_deref(), LINE_MAX);
    let given = problems.optional_line("givenName", patch.given_name.as_deref(), LINE_MAX);
    if let Some(birth_date) = patch.birth_date {
        birth_date_check(txn, &mut problems, birth_date).await?;
    }
    problems.done()?;
    lock(txn, &[id]).await?;
    let before = get(txn, id).await?;
    same_version("the patient", before.version, version)?;
    if before.merged_into.is_some() {
        return Err(LabError::conflict(
            "merged",
            "this patient is merged into another; change that one",
        ));
    }
    let family = family.as_deref().unwrap_or(&before.family_name);
    let given = given.as_deref().unwrap_or(&before.given_name);
    let claimed = national_id;
    // Absent stays, null takes it away.
    let national_id = match &patch.national_id {
        Some(_) => claimed.as_deref(),
        None => before.national_id.as_deref(),
    };
    let (sex, birth_date) = (
        patch.sex.unwrap_or(before.sex),
        patch.birth_date.unwrap_or(before.birth_date),
    );
    if (family, given, national_id, sex, birth_date)
        == (
            &before.family_name,
            &before.given_name,
            before.national_id.as_deref(),
            before.sex,
            before.birth_date,
        )
    {
        return Ok(before);
    }
    if birth_date != before.birth_date {
        born_in_time(txn, id, birth_date, "birthDate").await?;
    }
    if let Some(number) = &claimed {
        number_claim(txn, number, id).await?;
    }
    let statement = txn
        .prepare_cached(
            "UPDATE patient SET national_id = $2, family_name = $3, given_name = $4,
               family_key = $5, given_key = $6, sex = coalesce($7, sex), birth_date = coalesce($8, birth_date)
             WHERE id = $1",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &id,
            &national_id,
            &family,
            &given,
            &search_key(family),
            &search_key(given),
            &patch.sex,
            &patch.birth_date,
        ],
    )
    .await
    .map_err(duplicate(NUMBER, DUPLICATE))?;
    // Which fields, and what they were: the row itself keeps only the present.
    let detail = serde_json::json!({ "before": before });
    audit::write(txn, actor, "patient.changed", "patient", id, Some(detail)).await?;
    let after = get(txn, id).await?;
    let reason = match (before.sex != after.sex, before.birth_date != after.birth_date) {
        (true, true) => Some("the patient's sex and birth date were corrected"),
        (true, false) => Some("the patient's sex was corrected"),
        (false, true) => Some("the patient's birth date was corrected"),
        (false, false) => None,
    };
    if let Some(reason) = reason {
        evaluation::again(txn, actor, Affected::Person(id), reason).await?;
    }
    Ok(after)
}

/// Points a duplicate to the patient who lives on. Orders and results stay where they are: reading follows
/// the pointer, and what is known of the duplicate finds the patient who lives on.
///
/// # Errors
/// [`LabError::Conflict`] when either is merged already, [`LabError::Invalid`] when they are the same row.
pub async fn merge(
    txn: &Txn<'_>,
    actor: &Actor,
    id: PatientId,
    merge: &PatientMerge,
) -> Result<Patient, LabError> {
    let reason = text::reason(&merge.reason)?;
    if merge.into == id {
        return Err(LabError::invalid(
            "into",
            "a patient cannot be merged into itself",
        ));
    }
    lock(txn, &[id, merge.into]).await?;
    let from = get(txn, id).await?;
    let into = get(txn, merge.into).await.map_err(|error| match error {
        LabError::NotFound { .. } => error.at("into"),
        other => other,
    })?;
    if from.merged_into.is_some() || into.merged_into.is_some() {
        return Err(LabError::conflict(
            "merged",
            "one of the two is merged already; merge the patients who live on",
        ));
    }
    born_in_time(txn, id, into.birth_date, "into").await?;
    // Earlier duplicates of the duplicate follow, so that one step always leads to the patient who lives on.
    let statement = txn
        .prepare_cached(
            "UPDATE patient SET merged_into = $2, merge_reason = coalesce(merge_reason, $3) WHERE id = $1 OR merged_into = $1",
        )
        .await?;
    txn.execute(&statement, &[&id, &merge.into, &reason]).await?;
    let detail = serde_json::json!({ "into": merge.into, "reason": reason });
    audit::write(txn, actor, "patient.merged", "patient", id, Some(detail)).await?;
    let reason = "the patient was merged into another record of the same person";
    evaluation::again(txn, actor, Affected::Person(merge.into), reason).await?;
    get(txn, merge.into).await
}

/// Undoes a merge, while no result of the person has left the laboratory since: a report that did speaks of
/// one person. What had been merged into the duplicate before stays merged into it.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `not_merged`, `released_since`, or `duplicate` when the
/// patient who lives on has taken over the national number.
pub async fn unmerge(
    txn: &Txn<'_>,
    actor: &Actor,
    id: PatientId,
    reason: &Reason,
) -> Result<Patient, LabError> {
    let reason = text::reason(&reason.reason)?;
    let Some(survivor) = get(txn, id).await?.merged_into else {
        return Err(not_merged());
    };
    // The whole person, then their results: a release at this moment must be seen or wait.
    let person = txn
        .prepare_cached(
            "SELECT id FROM patient WHERE id = $1 OR merged_into = $1 ORDER BY id FOR NO KEY UPDATE",
        )
        .await?;
    let people: Vec<PatientId> = txn
        .query(&person, &[&survivor])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let results = txn
        .prepare_cached(
            "SELECT id FROM result WHERE patient_id = ANY($1) AND open ORDER BY id FOR NO KEY UPDATE",
        )
        .await?;
    txn.query(&results, &[&people]).await?;
    let before = get(txn, id).await?;
    if before.merged_into != Some(survivor) {
        return Err(not_merged());
    }
    let released = txn
        .prepare_cached("SELECT EXISTS (SELECT FROM result WHERE patient_id = ANY($1) AND released_at > $2)")
        .await?;
    if txn
        .query_one(&released, &[&people, &before.merged_at])
        .await?
        .get(0)
    {
        return Err(LabError::conflict(
            "released_since",
            "results of this person were released since the merge, as one person's; it cannot be undone any more",
        ));
    }
    if let Some(number) = &before.national_id {
        claim(txn, NUMBER, number).await?;
        let taken = txn
            .prepare_cached("SELECT EXISTS (SELECT FROM patient WHERE id = $1 AND national_id = $2)")
            .await?;
        if txn.query_one(&taken, &[&survivor, number]).await?.get(0) {
            return Err(LabError::conflict(
                "duplicate",
                "the patient it was merged into has this national number now, too; take it away there first",
            ));
        }
    }
    // Those that came with it first: the number's guard looks who belongs together.
    let with_it = txn
        .prepare_cached(
            "WITH RECURSIVE came AS (
               SELECT id FROM patient WHERE merged_directly = $1
               UNION SELECT p.id FROM patient p JOIN came ON p.merged_directly = came.id)
             UPDATE patient SET merged_into = $1 WHERE id IN (SELECT id FROM came)",
        )
        .await?;
    txn.execute(&with_it, &[&id]).await?;
    let sql = "UPDATE patient SET merged_into = NULL WHERE id = $1";
    txn.execute(&txn.prepare_cached(sql).await?, &[&id]).await?;
    let detail = serde_json::json!({ "from": survivor, "reason": reason });
    audit::write(txn, actor, "patient.unmerged", "patient", id, Some(detail)).await?;
    let reason = "the patient's record was parted from another one";
    for person in [id, survivor] {
        evaluation::again(txn, actor, Affected::Person(person), reason).await?;
    }
    get(txn, id).await
}

fn not_merged() -> LabError {
    LabError::conflict("not_merged", "this patient is not merged into another")
}

/// The ids of one person: the surviving patient and all patients merged into it.
pub(crate) async fn person_of(txn: &Txn<'_>, id: PatientId) -> Result<Vec<PatientId>, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT p.id FROM patient asked JOIN patient p
               ON coalesce(p.merged_into, p.id) = coalesce(asked.merged_into, asked.id)
              AND (p.id = coalesce(asked.merged_into, asked.id) OR p.merged_into = coalesce(asked.merged_into, asked.id))
             WHERE asked.id = $1",
        )
        .await?;
    let rows = txn.query(&statement, &[&id]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Refuses a number that belongs to another person, before a statement fails that holds it. A number of a
/// record that was merged into this patient is this patient's, too.
async fn number_claim(txn: &Txn<'_>, number: &Line, own: PatientId) -> Result<(), LabError> {
    claim(txn, NUMBER, number).await?;
    let statement = txn
        .prepare_cached(
            "SELECT EXISTS (SELECT FROM patient WHERE national_id = $1 AND id <> $2 AND merged_into IS DISTINCT FROM $2)",
        )
        .await?;
    if txn.query_one(&statement, &[number, &own]).await?.get(0) {
        return Err(LabError::conflict("duplicate", DUPLICATE));
    }
    Ok(())
}

async fn lock(txn: &Txn<'_>, ids: &[PatientId]) -> Result<(), LabError> {
    txn.query(
        "SELECT id FROM patient WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        &[&ids],
    )
    .await?;
    Ok(())
}

/// Born after 1850 and not later than today on the laboratory's calendar.
async fn birth_date_check(txn: &Txn<'_>, problems: &mut Problems, birth_date: Date) -> Result<(), LabError> {
    let today: Date = txn.query_one("SELECT lab_day(now())", &[]).await?.get(0);
    if birth_date < jiff::civil::date(1850, 1, 1) || birth_date > today {
        problems.add("birthDate", "it must lie between 1850-01-01 and today");
    }
    Ok(())
}

/// Refuses a birth date after a specimen of the same person (a duplicate merged into them is that person) was
/// collected.
async fn born_in_time(txn: &Txn<'_>, id: PatientId, birth_date: Date, field: &str) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT s.barcode FROM patient p JOIN lab_order o ON o.patient_id = p.id JOIN specimen s ON s.order_id = o.id
             WHERE (p.id = $1 OR p.merged_into = $1) AND s.status <> 'rejected'
               AND lab_day(coalesce(s.collected_at, s.received_at)) < $2
             ORDER BY s.barcode LIMIT 1",
        )
        .await?;
    match txn.query_opt(&statement, &[&id, &birth_date]).await? {
        None => Ok(()),
        Some(row) => {
            let barcode: &str = row.get(0);
            let message = format!(
                "specimen {barcode} was collected before {birth_date}; if its time is wrong, correct that first"
            );
            Err(LabError::invalid(field, message))
        }
    }
}

fn patient(row: &Row) -> Result<Patient, LabError> {
    let row = Reader::new("patient", row);
    Ok(Patient {
        id: row.get("id")?,
        mrn: row.get("mrn")?,
        national_id: row.get("national_id")?,
        family_name: row.get("family_name")?,
        given_name: row.get("given_name")?,
        sex: row.get("sex")?,
        birth_date: row.get("birth_date")?,
        merged_into: row.get("merged_into")?,
        merged_at: row.get("merged_at")?,
        merged_records: row
            .get::<Option<Json<Vec<MergedRecord>>>>("merged_records")?
            .map(|Json(records)| records)
            .unwrap_or_default(),
        found_by: row.get("found_by")?,
        created_at: row.get("created_at")?,
        version: row.get("version")?,
    })
}
