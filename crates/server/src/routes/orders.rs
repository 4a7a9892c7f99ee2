//! Orders: what was asked for a patient.

use actix_web::{HttpRequest, HttpResponse, get, post};
use jiff::civil::Date;
use lab::{
    Action, OrderId, OrderStatus, Page, PageRequest, PatientId, Reason,
    orders::{self, AddTests, NewOrder, Order, OrderFilter, OrderHead},
    report::Report,
};
use model::{openapi::Line, time::Day};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Body, IdempotencyKey, Params, PathId, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

/// Which orders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this patient, with those of merged duplicates.
    #[param(value_type = Option<Uuid>)]
    patient_id: Option<PatientId>,
    /// Only those in this status.
    status: Option<OrderStatus>,
    /// Only the one with this accession number.
    #[param(value_type = Option<Line>, inline)]
    accession_no: Option<String>,
    /// Only those with this number of the requester's.
    #[param(value_type = Option<Line>, inline)]
    placer_order_no: Option<String>,
    /// Only those of this requester.
    #[param(value_type = Option<Line>, inline)]
    requester: Option<String>,
    /// Only those placed on this day of the laboratory's calendar, from 1900 on.
    #[param(value_type = Option<Date>)]
    ordered_on: Option<Day>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Places an order: it gets an accession number, specimens with barcodes and pending results.
#[utoipa::path(tag = "laboratory", request_body = NewOrder, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Order, headers(("Location" = String), ("ETag" = String)))))]
#[post("/orders")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    body: Body<NewOrder>,
) -> ApiResult<HttpResponse> {
    let work = tenant.create(
        Action::OrderCreate,
        &key,
        "POST orders",
        &body.bytes,
        async |txn, actor| {
            let order = orders::create(txn, actor, &body.value).await?;
            Ok(Created::of(
                format!("/api/v1/orders/{}", order.head.id),
                Some(order.head.version),
                &order,
            ))
        },
    );
    work.await
}

/// Orders, those placed last first, without their specimens and results.
#[utoipa::path(tag = "laboratory", params(ListQuery), responses((status = 200, body = Page<OrderHead>)))]
#[get("/orders")]
pub(crate) async fn list(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<ListQuery>,
) -> ApiResult<HttpResponse> {
    let Params(ListQuery {
        patient_id,
        status,
        accession_no,
        placer_order_no,
        requester,
        ordered_on,
        after,
        limit,
    }) = query;
    let filter = OrderFilter {
        patient_id,
        status,
        accession_no,
        placer_order_no,
        requester,
        ordered_on: ordered_on.map(Date::from),
    };
    let page = PageRequest { limit, after };
    let found = tenant
        .read(Action::OrderRead, async |txn, _| {
            orders::list(txn, &filter, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}

/// One order with its specimens and results.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Order, headers(("ETag" = String)))))]
#[get("/orders/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<OrderId>) -> ApiResult<HttpResponse> {
    let order = tenant
        .read(Action::OrderRead, async |txn, _| orders::get(txn, id.0).await)
        .await?;
    Ok(response::ok_tagged(order.head.version, &order))
}

/// Adds tests to an open order.
#[utoipa::path(tag = "laboratory", request_body = AddTests, params(("id" = Uuid, Path)),
    responses((status = 200, body = Order, headers(("ETag" = String)))))]
#[post("/orders/{id}/tests")]
pub(crate) async fn add_tests(
    tenant: Tenant,
    id: PathId<OrderId>,
    body: Body<AddTests>,
) -> ApiResult<HttpResponse> {
    let order = tenant
        .write(Action::OrderChange, async |txn, actor| {
            orders::add_tests(txn, actor, id.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(order.head.version, &order))
}

/// Calls an order off, with all its open results.
#[utoipa::path(tag = "laboratory", request_body = Reason, params(("id" = Uuid, Path)),
    responses((status = 200, body = Order, headers(("ETag" = String)))))]
#[post("/orders/{id}/cancel")]
pub(crate) async fn cancel(
    tenant: Tenant,
    id: PathId<OrderId>,
    body: Body<Reason>,
) -> ApiResult<HttpResponse> {
    let order = tenant
        .write(Action::OrderChange, async |txn, actor| {
            orders::cancel(txn, actor, id.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(order.head.version, &order))
}

/// The report of an order: what was released, by whom, and what it replaced.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 200, body = Report)))]
#[get("/orders/{id}/report")]
pub(crate) async fn report(tenant: Tenant, id: PathId<OrderId>) -> ApiResult<HttpResponse> {
    let report = tenant
        .read(Action::ReportRead, async |txn, _| {
            lab::report::of_order(txn, id.0).await
        })
        .await?;
    Ok(response::ok(&report))
}
