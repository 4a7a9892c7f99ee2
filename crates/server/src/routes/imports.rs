//! Imports: files of results from instruments and other laboratories.

use actix_web::{HttpRequest, HttpResponse, get, post};
use lab::{
    Action, ImportFormat, ImportId, Page, PageRequest,
    imports::{self, IMPORT_BYTES_MAX, IMPORT_ROWS_MAX, ImportBatch, ImportError},
};
use model::text_schema;
use serde::Deserialize;
use utoipa::{
    IntoParams,
    openapi::{ObjectBuilder, schema::Type},
};

use crate::{
    extract::{IdempotencyKey, Params, PathId, RawBody, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

/// How to take the file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Only tell what would become of each row; nothing is entered.
    #[serde(default)]
    dry_run: bool,
}

text_schema!(
    /// A file of CSV.
    pub CsvFile,
    file("text/csv", "RFC 4180 with a header line, whose names are the fields of `ImportRow`, each at most once: `barcode`, `value`, \
         and `code` or `loinc` at least. In UTF-8.")
);

text_schema!(
    /// A file of NDJSON.
    pub NdjsonFile,
    file("application/x-ndjson", "One `ImportRow` a line. In UTF-8.")
);

fn file(media_type: &str, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .content_media_type(media_type)
        .description(Some(format!(
            "{description} At most {IMPORT_ROWS_MAX} rows and {IMPORT_BYTES_MAX} bytes."
        )))
}

/// Takes a file of results. Rows that match nothing are set aside with their reason and stop no other. The
/// same file gives the same batch and is worked on again: rows whose cause is gone land now, and `rowsOk`
/// counts only what this delivery did.
#[utoipa::path(tag = "laboratory", params(ImportQuery, ("Idempotency-Key" = Option<String>, Header)),
    request_body(content((CsvFile = "text/csv"), (NdjsonFile = "application/x-ndjson"))),
    responses((status = 202, body = ImportBatch, headers(("Location" = String)))))]
#[post("/imports")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    query: Params<ImportQuery>,
    body: RawBody,
) -> ApiResult<HttpResponse> {
    let format = match body.content_type.as_str() {
        "text/csv" => ImportFormat::Csv,
        "application/x-ndjson" => ImportFormat::Ndjson,
        _ => return Err(body.wrong_type("text/csv or application/x-ndjson")),
    };
    let dry_run = query.0.dry_run;
    let route = if dry_run {
        "POST imports?dryRun=true"
    } else {
        "POST imports"
    };
    let work = tenant.create(Action::Import, &key, route, &body.bytes, async |txn, actor| {
        let batch = imports::run(txn, actor, format, dry_run, &body.bytes).await?;
        Ok(Created::accepted(format!("/api/v1/imports/{}", batch.id), &batch))
    });
    work.await
}

/// How an import went.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 200, body = ImportBatch)))]
#[get("/imports/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<ImportId>) -> ApiResult<HttpResponse> {
    let batch = tenant
        .read(Action::Import, async |txn, _| imports::get(txn, id.0).await)
        .await?;
    Ok(response::ok(&batch))
}

/// Which page to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ErrorsQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The rows that were set aside, with their reasons.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path), ErrorsQuery),
    responses((status = 200, body = Page<ImportError>)))]
#[get("/imports/{id}/errors")]
pub(crate) async fn errors(
    req: HttpRequest,
    tenant: Tenant,
    id: PathId<ImportId>,
    query: Params<ErrorsQuery>,
) -> ApiResult<HttpResponse> {
    let page = PageRequest {
        limit: query.0.limit,
        after: query.0.after,
    };
    let found = tenant
        .read(Action::Import, async |txn, _| {
            imports::errors(txn, id.0, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}

/// Tries the rows again that are set aside, now that their cause may be gone. `rowsOk` counts those that
/// landed in this run.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 200, body = ImportBatch)))]
#[post("/imports/{id}/retry")]
pub(crate) async fn retry(tenant: Tenant, id: PathId<ImportId>) -> ApiResult<HttpResponse> {
    let batch = tenant
        .write(Action::Import, async |txn, actor| {
            imports::retry(txn, actor, id.0).await
        })
        .await?;
    Ok(response::ok(&batch))
}
