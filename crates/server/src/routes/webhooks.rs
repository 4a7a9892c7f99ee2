//! Webhooks: addresses to which events are sent, and what became of each.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, web};
use jiff::Timestamp;
use lab::Page;
use model::{DeliveryId, DeliveryStatus, EventId, EventType, WebhookId};
use outbox::{NewAddress, OVERLAP_MAX};
use registry::{Attempt, Delivery, DeliveryFilter, Webhook, deliveries_list, webhook_by_id};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{Body, IdempotencyKey, MaybeBody, OperatorCaller, Params, PathId},
    input::WantedEvent,
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

// The description of `RotateBody` says so.
const _: () = assert!(OVERLAP_MAX.as_secs() == 2_592_000);

/// How long the secret before is valid unless a request says otherwise: a day.
const OVERLAP_S: u64 = 86_400;

/// An address to which events are sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookView {
    #[schema(value_type = Uuid)]
    id: WebhookId,
    url: String,
    description: String,
    /// Which types it gets; an empty list means all.
    #[schema(example = json!(["laboratory.suspended"]))]
    event_types: Vec<EventType>,
    /// Until when the secret before is valid beside the present one.
    secret_before_until: Option<Timestamp>,
    /// Since when every attempt has failed.
    failing_since: Option<Timestamp>,
    /// Since when it is not tried any more.
    disabled_at: Option<Timestamp>,
    disabled_why: Option<String>,
    created_by: String,
    created_at: Timestamp,
    /// What deliveries are signed with; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_…")]
    secret: Option<String>,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url,
            description: webhook.description,
            event_types: webhook.event_types,
            secret_before_until: webhook.secret_before_until,
            failing_since: webhook.failing_since,
            disabled_at: webhook.disabled_at,
            disabled_why: webhook.disabled_why,
            created_by: webhook.created_by.to_string(),
            created_at: webhook.created_at,
            secret: None,
        }
    }
}

impl WebhookView {
    fn with_secret(webhook: Webhook, secret: &SecretString) -> Self {
        Self {
            secret: Some(secret.expose_secret().to_owned()),
            ..Self::from(webhook)
        }
    }
}

/// One event on its way to one address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    #[schema(value_type = Uuid)]
    id: DeliveryId,
    #[schema(value_type = Uuid)]
    webhook_id: WebhookId,
    /// The header `webhook-id`.
    #[schema(value_type = Uuid)]
    event_id: EventId,
    #[schema(example = "laboratory.suspended")]
    event_type: String,
    /// Of two events of one laboratory the later has the greater one.
    sequence: i64,
    /// One of pending, delivered, failed.
    status: DeliveryStatus,
    attempts: u32,
    queued_at: Timestamp,
    /// When a pending one may be tried.
    not_before: Timestamp,
    ended_at: Option<Timestamp>,
    /// What the receiver answered last.
    status_code: Option<u16>,
    error: Option<String>,
    took_ms: Option<u64>,
    /// Every attempt, newest first; only when a single delivery is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<AttemptView>>,
}

/// What came of one attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    began_at: Timestamp,
    took_ms: u64,
    status_code: Option<u16>,
    error: Option<String>,
}

impl DeliveryView {
    fn of(delivery: Delivery, log: Option<Vec<Attempt>>) -> Self {
        let view = |attempt: Attempt| AttemptView {
            began_at: attempt.began_at,
            took_ms: attempt.took_ms,
            status_code: attempt.status_code,
            error: attempt.error,
        };
        Self {
            id: delivery.id,
            webhook_id: delivery.webhook,
            event_id: delivery.event,
            event_type: delivery.kind,
            sequence: delivery.position,
            status: delivery.status,
            attempts: delivery.attempts,
            queued_at: delivery.queued_at,
            not_before: delivery.not_before,
            ended_at: delivery.ended_at,
            status_code: delivery.status_code,
            error: delivery.error,
            took_ms: delivery.took_ms,
            log: log.map(|log| log.into_iter().map(view).collect()),
        }
    }
}

/// All webhooks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhooks {
    items: Vec<WebhookView>,
}

/// The addresses to which events are sent; there are at most a hundred.
#[utoipa::path(tag = "operators", responses((status = 200, body = Webhooks)))]
#[get("/webhooks")]
pub(crate) async fn list(_operator: OperatorCaller, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let found = registry::webhooks_list(&state.registry_client().await?).await?;
    let items = found.into_iter().map(WebhookView::from).collect();
    Ok(response::ok(&Webhooks { items }))
}

/// An address that is to get events.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewWebhookBody {
    /// `https://…`, or `http://…`; an address of the internet unless the settings allow others.
    #[schema(
        example = "https://billing.example/hooks/tenantry",
        max_length = 2_000,
        pattern = "^https?://[^\\s#@]+$"
    )]
    url: String,
    /// What it is for, without control characters.
    #[serde(default)]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F]*$")]
    description: String,
    /// Which types it gets; all unless given.
    #[serde(default)]
    #[schema(value_type = Vec<WantedEvent>)]
    event_types: Vec<EventType>,
}

/// Registers an address: it gets what happens from now on. The answer holds the secret with which deliveries
/// are signed, and nothing shows it again.
#[utoipa::path(tag = "operators", request_body = NewWebhookBody, responses((status = 201, body = WebhookView)))]
#[post("/webhooks")]
pub(crate) async fn create(
    operator: OperatorCaller,
    body: Body<NewWebhookBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let NewWebhookBody {
        url,
        description,
        event_types,
    } = body.value;
    let new = NewAddress {
        url,
        description,
        event_types,
    };
    let by = operator.requested_by(IdempotencyKey(None));
    let (webhook, secret) = state.outbox.add(new, &by.change()).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/webhooks/{}", webhook.id)))
        .json(WebhookView::with_secret(webhook, &secret)))
}

/// One address.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = WebhookView)))]
#[get("/webhooks/{id}")]
pub(crate) async fn show(
    _operator: OperatorCaller,
    id: PathId<WebhookId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let found = webhook_by_id(&state.registry_client().await?, id.0).await?;
    let webhook = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(response::ok(&WebhookView::from(webhook)))
}

/// Removes an address with all that waits for it.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 204)))]
#[delete("/webhooks/{id}")]
pub(crate) async fn remove(
    operator: OperatorCaller,
    id: PathId<WebhookId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    state.outbox.remove(id.0, &by.change()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// How a secret is to be changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateBody {
    /// How long deliveries are signed with the secret before too; a day unless given, 30 days at most.
    #[schema(example = 86_400, maximum = 2_592_000)]
    overlap_seconds: Option<u64>,
}

/// Gives an address a new secret, which only this answer holds.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), request_body(content = Option<RotateBody>),
    responses((status = 200, body = WebhookView)))]
#[post("/webhooks/{id}/rotate")]
pub(crate) async fn rotate(
    operator: OperatorCaller,
    id: PathId<WebhookId>,
    body: MaybeBody<RotateBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let MaybeBody(RotateBody { overlap_seconds }) = body;
    let overlap = Duration::from_secs(overlap_seconds.unwrap_or(OVERLAP_S));
    let by = operator.requested_by(IdempotencyKey(None));
    let rotated = state.outbox.rotate(id.0, overlap, &by.change()).await;
    let (webhook, secret) =
        rotated.map_err(|error| Problem::from(error).renaming("overlap", "overlapSeconds"))?;
    Ok(response::ok(&WebhookView::with_secret(webhook, &secret)))
}

/// Switches an address on: what waits for it is sent at once.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = WebhookView)))]
#[post("/webhooks/{id}/enable")]
pub(crate) async fn enable(
    operator: OperatorCaller,
    id: PathId<WebhookId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    let webhook = state.outbox.enable(id.0, &by.change()).await?;
    Ok(response::ok(&WebhookView::from(webhook)))
}

/// Switches an address off: its events wait, as long as the settings let them.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = WebhookView)))]
#[post("/webhooks/{id}/disable")]
pub(crate) async fn disable(
    operator: OperatorCaller,
    id: PathId<WebhookId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    let webhook = state.outbox.disable(id.0, &by.change()).await?;
    Ok(response::ok(&WebhookView::from(webhook)))
}

/// Sends a `webhook.test` to this address alone. What came of it stands in the delivery a moment later.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)),
    responses((status = 202, body = DeliveryView, headers(("Location" = String, description = "The delivery")))))]
#[post("/webhooks/{id}/test")]
pub(crate) async fn test(
    operator: OperatorCaller,
    id: PathId<WebhookId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    Ok(queued(state.outbox.test(id.0, &by.change()).await?))
}

fn queued(delivery: Delivery) -> HttpResponse {
    let location = format!("/api/v1/webhook-deliveries/{}", delivery.id);
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(DeliveryView::of(delivery, None))
}

/// Which deliveries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// Only those in this status.
    #[param(inline)]
    status: Option<DeliveryStatus>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The deliveries to an address, those of the newest events first.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), DeliveriesQuery),
    responses((status = 200, body = Page<DeliveryView>)))]
#[get("/webhooks/{id}/deliveries")]
pub(crate) async fn deliveries(
    req: HttpRequest,
    _operator: OperatorCaller,
    id: PathId<WebhookId>,
    query: Params<DeliveriesQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Params(query) = query;
    let limit = response::limit(query.limit)?;
    let before = query
        .after
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| response::bad_cursor())?;
    let filter = DeliveryFilter {
        webhook: Some(id.0),
        status: query.status,
        event: None,
    };
    let client = state.registry_client().await?;
    if webhook_by_id(&client, id.0).await?.is_none() {
        return Err(Problem::new(Kind::NotFound));
    }
    let before = before.map(|position| (position, id.0));
    let found = deliveries_list(&client, &filter, before, limit + 1).await?;
    let page = response::cut(found, limit, |delivery| delivery.position.to_string());
    Ok(response::page(
        &req,
        &response::map(page, |delivery| DeliveryView::of(delivery, None)),
    ))
}

/// One delivery with its attempts.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = DeliveryView)))]
#[get("/webhook-deliveries/{id}")]
pub(crate) async fn show_delivery(
    _operator: OperatorCaller,
    id: PathId<DeliveryId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let found = registry::delivery_by_id(&client, id.0).await?;
    let delivery = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    let log = registry::attempts_of(&client, id.0).await?;
    Ok(response::ok(&DeliveryView::of(delivery, Some(log))))
}

/// Sends an event once more to the address, under the same `webhook-id`. One that is still pending stays as
/// it is.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)),
    responses((status = 202, body = DeliveryView, headers(("Location" = String, description = "The delivery")))))]
#[post("/webhook-deliveries/{id}/redeliver")]
pub(crate) async fn redeliver(
    operator: OperatorCaller,
    id: PathId<DeliveryId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    Ok(queued(state.outbox.redeliver(id.0, &by.change()).await?))
}
