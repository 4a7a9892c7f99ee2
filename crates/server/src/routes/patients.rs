//! Patients.

use actix_web::{HttpRequest, HttpResponse, get, patch, post};
use jiff::civil::Date;
use lab::{
    Action, Page, PageRequest, PatientId, Reason,
    over_time::{self, TimeFilter, TimedResult},
    patients::{self, NewPatient, Patient, PatientMerge, PatientPatch, PatientSearch},
};
use model::{openapi::Line, time::Day};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Body, IdempotencyKey, IfMatch, Params, PathId, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

// The description of `SearchQuery` says so.
const _: () = assert!(patients::SEARCH_CHARS_MAX == 100);

/// Whom to find.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// The beginning of a name, in any case and with or without accents, or a whole number (MRN or national).
    #[param(
        max_length = 100,
        pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F\\u2028\\u2029]*$"
    )]
    q: Option<String>,
    #[param(value_type = Option<Date>)]
    birth_date: Option<Day>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Registers a patient.
#[utoipa::path(tag = "laboratory", request_body = NewPatient,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Patient, headers(("Location" = String), ("ETag" = String)))))]
#[post("/patients")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    body: Body<NewPatient>,
) -> ApiResult<HttpResponse> {
    let work = tenant.create(
        Action::PatientCreate,
        &key,
        "POST patients",
        &body.bytes,
        async |txn, actor| {
            let patient = patients::create(txn, actor, &body.value).await?;
            Ok(Created::of(
                format!("/api/v1/patients/{}", patient.id),
                Some(patient.version),
                &patient,
            ))
        },
    );
    work.await
}

/// Finds patients, those registered last first. What is known of a merged duplicate finds the patient who
/// lives on, and `foundBy` says by which one.
#[utoipa::path(tag = "laboratory", params(SearchQuery), responses((status = 200, body = Page<Patient>)))]
#[get("/patients")]
pub(crate) async fn search(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<SearchQuery>,
) -> ApiResult<HttpResponse> {
    let Params(SearchQuery {
        q,
        birth_date,
        after,
        limit,
    }) = query;
    let wanted = PatientSearch {
        q,
        birth_date: birth_date.map(Date::from),
    };
    let page = PageRequest { limit, after };
    let found = tenant
        .read(Action::PatientRead, async |txn, _| {
            patients::search(txn, &wanted, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}

/// One patient.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Patient, headers(("ETag" = String)))))]
#[get("/patients/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<PatientId>) -> ApiResult<HttpResponse> {
    let patient = tenant
        .read(Action::PatientRead, async |txn, _| patients::get(txn, id.0).await)
        .await?;
    Ok(response::ok_tagged(patient.version, &patient))
}

/// Corrects a patient's data.
#[utoipa::path(tag = "laboratory", request_body = PatientPatch,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Patient, headers(("ETag" = String)))))]
#[patch("/patients/{id}")]
pub(crate) async fn change(
    tenant: Tenant,
    id: PathId<PatientId>,
    version: IfMatch,
    body: Body<PatientPatch>,
) -> ApiResult<HttpResponse> {
    let patient = tenant
        .write(Action::PatientChange, async |txn, actor| {
            patients::update(txn, actor, id.0, version.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(patient.version, &patient))
}

/// Points a duplicate to the patient who lives on, who is the answer.
#[utoipa::path(tag = "laboratory", request_body = PatientMerge, params(("id" = Uuid, Path)),
    responses((status = 200, body = Patient, headers(("ETag" = String)))))]
#[post("/patients/{id}/merge")]
pub(crate) async fn merge(
    tenant: Tenant,
    id: PathId<PatientId>,
    body: Body<PatientMerge>,
) -> ApiResult<HttpResponse> {
    let patient = tenant
        .write(Action::PatientMerge, async |txn, actor| {
            patients::merge(txn, actor, id.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(patient.version, &patient))
}

/// Undoes a merge, while no result of the person was released since; the patient who was merged is the
/// answer.
#[utoipa::path(tag = "laboratory", request_body = Reason, params(("id" = Uuid, Path)),
    responses((status = 200, body = Patient, headers(("ETag" = String)))))]
#[post("/patients/{id}/unmerge")]
pub(crate) async fn unmerge(
    tenant: Tenant,
    id: PathId<PatientId>,
    body: Body<Reason>,
) -> ApiResult<HttpResponse> {
    let patient = tenant
        .write(Action::PatientMerge, async |txn, actor| {
            patients::unmerge(txn, actor, id.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(patient.version, &patient))
}

/// Which results to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
    /// Only those of this test.
    #[param(value_type = Option<Line>, inline)]
    code: Option<String>,
    /// Also those without a released value: open, cancelled and voided ones.
    #[serde(default)]
    open: bool,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The results of a patient over time, those drawn last first, with those of merged duplicates.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path), ResultsQuery),
    responses((status = 200, body = Page<TimedResult>)))]
#[get("/patients/{id}/results")]
pub(crate) async fn results(
    req: HttpRequest,
    tenant: Tenant,
    id: PathId<PatientId>,
    query: Params<ResultsQuery>,
) -> ApiResult<HttpResponse> {
    let Params(ResultsQuery {
        code,
        open,
        after,
        limit,
    }) = query;
    let (filter, page) = (TimeFilter { code, open }, PageRequest { limit, after });
    let found = tenant
        .read(Action::ReportRead, async |txn, _| {
            over_time::of_patient(txn, id.0, &filter, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}
