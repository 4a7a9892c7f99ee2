//! The service's own health, figures and problem types. None of these needs a token, none names a laboratory's data.

use actix_web::{HttpResponse, get, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    problem::{Answer, Kind, Problem},
    scrape,
    state::AppState,
};

/// A probe's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    /// `ok`, or what is missing.
    status: &'static str,
}

/// Whether the process runs.
#[utoipa::path(tag = "service", security(()), responses((status = 200, body = Probe)))]
#[get("/livez")]
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Probe { status: "ok" })
}

/// Whether the process can serve: the registry answers and it is not closing. It never asks a laboratory's database,
/// so one broken server does not take the others out of service.
#[utoipa::path(tag = "service", security(()),
    responses((status = 200, body = Probe), (status = 503, body = Probe)))]
#[get("/readyz")]
pub(crate) async fn readyz(state: web::Data<AppState>) -> HttpResponse {
    if state.lifecycle.is_closing() {
        return HttpResponse::ServiceUnavailable().json(Probe { status: "closing" });
    }
    match state.registry.check_version().await {
        Ok(()) => HttpResponse::Ok().json(Probe { status: "ok" }),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            HttpResponse::ServiceUnavailable().json(Probe {
                status: "registry-unavailable",
            })
        }
    }
}

/// Figures for Prometheus, in the text format of OpenMetrics.
#[utoipa::path(tag = "service", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
#[get("/metrics")]
pub(crate) async fn metrics(state: web::Data<AppState>) -> Answer<HttpResponse> {
    let more = scrape::read(&state).await;
    let text = state.metrics.text(&more).map_err(Problem::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ))
        .body(text))
}

/// One type of refusal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemType {
    /// The `type` of such a problem.
    r#type: String,
    /// Its short word.
    code: &'static str,
    /// The status it is sent with.
    status: u16,
    /// One line for people.
    title: &'static str,
    /// What it means and what to do.
    help: &'static str,
}

impl From<Kind> for ProblemType {
    fn from(kind: Kind) -> Self {
        Self {
            r#type: kind.address(),
            code: kind.code(),
            status: kind.status().as_u16(),
            title: kind.title(),
            help: kind.help(),
        }
    }
}

/// Every type of refusal.
#[utoipa::path(tag = "service", security(()), responses((status = 200, body = [ProblemType])))]
#[get("/problems")]
pub(crate) async fn problem_types() -> HttpResponse {
    let all: Vec<ProblemType> = Kind::ALL.iter().copied().map(ProblemType::from).collect();
    HttpResponse::Ok().json(all)
}

/// The page that a problem's `type` leads to.
#[utoipa::path(tag = "service", security(()), params(("code" = String, Path)),
    responses((status = 200, body = ProblemType)))]
#[get("/problems/{code}")]
pub(crate) async fn problem_type(code: web::Path<String>) -> Answer<HttpResponse> {
    let kind = Kind::by_code(&code).ok_or_else(|| Problem::new(Kind::NoSuchRoute))?;
    Ok(HttpResponse::Ok().json(ProblemType::from(kind)))
}
