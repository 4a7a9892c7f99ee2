//! The documents that `--json` prints. Fields are only ever added.

use model::{DbName, OperationKind, OperationStatus, SchemaVersion, StaffId, Step, StepStatus, TenantState};
use registry::{Admin, Archive, Delivery, Operation, Operator, StepRow, Tenant, TenantEventRow, Webhook};
use serde::Serialize;
use serde_json::Value;

/// A laboratory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantView {
    id: model::TenantId,
    slug: model::Slug,
    name: String,
    status: TenantState,
    time_zone: String,
    server: model::ServerName,
    database: DbName,
    db_version: SchemaVersion,
    code_version: SchemaVersion,
    generation: i64,
    created_at: jiff::Timestamp,
    updated_at: jiff::Timestamp,
    activated_at: Option<jiff::Timestamp>,
}

impl From<&Tenant> for TenantView {
    fn from(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id,
            slug: tenant.slug.clone(),
            name: tenant.name.clone(),
            status: tenant.status,
            time_zone: tenant.time_zone.clone(),
            server: tenant.server.clone(),
            database: tenant.db_name.clone(),
            db_version: tenant.db_version,
            code_version: migrator::latest(),
            generation: tenant.generation,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
            activated_at: tenant.activated_at,
        }
    }
}

/// Refused log-ins of one hour.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefusalsView {
    since: jiff::Timestamp,
    last_at: jiff::Timestamp,
    refusals: i64,
    audience: String,
    reason: String,
    tenant_id: Option<model::TenantId>,
    tenant: Option<model::Slug>,
    email: Option<String>,
    client: Option<String>,
    last_request_id: Option<String>,
}

impl From<&registry::Refusals> for RefusalsView {
    fn from(row: &registry::Refusals) -> Self {
        let row = row.clone();
        Self {
            since: row.since,
            last_at: row.last_at,
            refusals: row.refusals,
            audience: row.audience,
            reason: row.reason,
            tenant_id: row.tenant,
            tenant: row.tenant_slug,
            email: row.email,
            client: row.client,
            last_request_id: row.last_request_id,
        }
    }
}

/// An operation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationView {
    id: model::OperationId,
    kind: OperationKind,
    tenant_id: model::TenantId,
    tenant_slug: model::Slug,
    status: OperationStatus,
    attempts: u32,
    error: Option<String>,
    created_by: String,
    lease_owner: Option<String>,
    cancel_requested_by: Option<String>,
    waiting_until: Option<jiff::Timestamp>,
    not_before: jiff::Timestamp,
    created_at: jiff::Timestamp,
    started_at: Option<jiff::Timestamp>,
    finished_at: Option<jiff::Timestamp>,
}

impl From<&Operation> for OperationView {
    fn from(operation: &Operation) -> Self {
        Self {
            id: operation.id,
            kind: operation.kind,
            tenant_id: operation.tenant,
            tenant_slug: operation.tenant_slug.clone(),
            status: operation.status,
            attempts: operation.attempts,
            error: operation.error_text(),
            created_by: operation.created_by.to_string(),
            lease_owner: operation.lease_owner.clone(),
            cancel_requested_by: operation.cancel_requested_by.as_ref().map(ToString::to_string),
            waiting_until: operation.waiting_until,
            not_before: operation.not_before,
            created_at: operation.created_at,
            started_at: operation.started_at,
            finished_at: operation.finished_at,
        }
    }
}

/// One step of an operation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepView {
    step: Step,
    status: StepStatus,
    attempts: u32,
    worker: String,
    began_at: jiff::Timestamp,
    ended_at: Option<jiff::Timestamp>,
    saw: Option<Value>,
    error: Option<String>,
}

impl From<&StepRow> for StepView {
    fn from(row: &StepRow) -> Self {
        Self {
            step: row.step,
            status: row.status,
            attempts: row.attempts,
            worker: row.worker.clone(),
            began_at: row.began_at,
            ended_at: row.ended_at,
            saw: row.saw.clone(),
            error: row.error.clone(),
        }
    }
}

/// An archive; the manifest only where one archive is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArchiveView {
    id: model::ArchiveId,
    tenant_id: model::TenantId,
    tenant_slug: model::Slug,
    tenant_name: String,
    operation_id: Option<model::OperationId>,
    location: String,
    host: Option<String>,
    bytes: u64,
    sha256: String,
    db_version: SchemaVersion,
    made_for: OperationKind,
    created_by: String,
    created_at: jiff::Timestamp,
    imported_at: Option<jiff::Timestamp>,
    verified_at: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Value>,
}

impl From<&Archive> for ArchiveView {
    fn from(archive: &Archive) -> Self {
        Self {
            id: archive.id,
            tenant_id: archive.tenant,
            tenant_slug: archive.tenant_slug.clone(),
            tenant_name: archive.tenant_name.clone(),
            operation_id: archive.operation,
            location: archive.location.clone(),
            host: archive.host.clone(),
            bytes: archive.bytes,
            sha256: archive.sha256.clone(),
            db_version: archive.db_version,
            made_for: archive.made_for,
            created_by: archive.created_by.to_string(),
            created_at: archive.created_at,
            imported_at: archive.imported_at,
            verified_at: archive.verified_at,
            manifest: None,
        }
    }
}

impl ArchiveView {
    pub(crate) fn with_manifest(archive: &Archive) -> Self {
        Self {
            manifest: Some(archive.manifest.clone()),
            ..Self::from(archive)
        }
    }
}

/// Something that happened to a laboratory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    at: jiff::Timestamp,
    kind: String,
    actor: String,
    operation_id: Option<model::OperationId>,
    detail: Value,
}

impl From<&TenantEventRow> for EventView {
    fn from(event: &TenantEventRow) -> Self {
        Self {
            at: event.at,
            kind: event.kind.clone(),
            actor: event.actor.to_string(),
            operation_id: event.operation,
            detail: event.detail.clone(),
        }
    }
}

/// An administrator of a laboratory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdminView {
    id: StaffId,
    email: model::Email,
    display_name: String,
    has_password: bool,
    disabled_at: Option<jiff::Timestamp>,
}

impl From<&Admin> for AdminView {
    fn from(admin: &Admin) -> Self {
        Self {
            id: admin.id,
            email: admin.email.clone(),
            display_name: admin.display_name.clone(),
            has_password: admin.password_hash.is_some(),
            disabled_at: admin.disabled_at,
        }
    }
}

/// One of the platform's staff.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperatorView {
    id: model::OperatorId,
    email: model::Email,
    display_name: String,
    disabled_at: Option<jiff::Timestamp>,
    created_at: jiff::Timestamp,
}

impl From<&Operator> for OperatorView {
    fn from(operator: &Operator) -> Self {
        Self {
            id: operator.id,
            email: operator.email.clone(),
            display_name: operator.display_name.clone(),
            disabled_at: operator.disabled_at,
            created_at: operator.created_at,
        }
    }
}

/// An address to which events are sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookView {
    id: model::WebhookId,
    url: String,
    description: String,
    event_types: Vec<model::EventType>,
    secret_before_until: Option<jiff::Timestamp>,
    failing_since: Option<jiff::Timestamp>,
    failures: u32,
    disabled_at: Option<jiff::Timestamp>,
    disabled_why: Option<String>,
    created_by: String,
    created_at: jiff::Timestamp,
}

impl From<&Webhook> for WebhookView {
    fn from(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            event_types: webhook.event_types.clone(),
            secret_before_until: webhook.secret_before_until,
            failing_since: webhook.failing_since,
            failures: webhook.failures,
            disabled_at: webhook.disabled_at,
            disabled_why: webhook.disabled_why.clone(),
            created_by: webhook.created_by.to_string(),
            created_at: webhook.created_at,
        }
    }
}

/// One event on its way to one address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryView {
    id: model::DeliveryId,
    webhook_id: model::WebhookId,
    event_id: model::EventId,
    event_type: String,
    sequence: i64,
    status: model::DeliveryStatus,
    attempts: u32,
    queued_at: jiff::Timestamp,
    not_before: jiff::Timestamp,
    ended_at: Option<jiff::Timestamp>,
    status_code: Option<u16>,
    error: Option<String>,
    took_ms: Option<u64>,
}

impl From<&Delivery> for DeliveryView {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            webhook_id: delivery.webhook,
            event_id: delivery.event,
            event_type: delivery.kind.clone(),
            sequence: delivery.position,
            status: delivery.status,
            attempts: delivery.attempts,
            queued_at: delivery.queued_at,
            not_before: delivery.not_before,
            ended_at: delivery.ended_at,
            status_code: delivery.status_code,
            error: delivery.error.clone(),
            took_ms: delivery.took_ms,
        }
    }
}
