//! The service's own health, figures and problem types. None of these needs a token, none names a
//! laboratory's data.

use std::time::Duration;

use actix_web::{HttpResponse, get, http::header, web};
use registry::RegistryError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    problem::{ApiResult, Kind, Problem},
    scrape,
    state::AppState,
};

/// How long the registry may take to answer a probe: probes have limits of their own, often a second or two.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A probe's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    /// With 200 `ok`, or `degraded`; with 503 `closing`, `registry-unavailable` or `registry-version`.
    #[schema(example = "ok")]
    status: &'static str,
    /// What does not work though the process serves: `registry-unavailable`, then known laboratories are
    /// served and log-ins refused; `registry-read-only`, then log-ins and operators' changes are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
}

impl Probe {
    fn ok() -> Self {
        Self {
            status: "ok",
            degraded: Vec::new(),
        }
    }

    /// It serves, without this.
    fn degraded(without: &'static str) -> Self {
        Self {
            status: "degraded",
            degraded: vec![without],
        }
    }

    /// It does not serve.
    fn not_ready(status: &'static str) -> Self {
        Self {
            status,
            degraded: Vec::new(),
        }
    }
}

/// Whether the process runs.
#[utoipa::path(tag = "service", security(()), responses((status = 200, body = Probe)))]
#[get("/livez")]
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Probe::ok())
}

/// Whether the process serves, so that requests should be sent to it.
///
/// While the registry cannot be reached it does so for as long as some laboratory that it knows is served
/// (`router.outage_max_s`): else a load balancer would take every process out of service at once. It never
/// asks a laboratory's database, so one broken server does not take the others out of service.
#[utoipa::path(tag = "service", security(()),
    responses((status = 200, body = Probe), (status = 503, body = Probe)))]
#[get("/readyz")]
pub(crate) async fn readyz(state: web::Data<AppState>) -> HttpResponse {
    if state.lifecycle.is_closing() {
        return HttpResponse::ServiceUnavailable().json(Probe::not_ready("closing"));
    }
    match registry_takes_writes(&state).await {
        Ok(true) => HttpResponse::Ok().json(Probe::ok()),
        Ok(false) => HttpResponse::Ok().json(Probe::degraded("registry-read-only")),
        Err(RegistryError::Unavailable { .. }) if state.resolver.serves_without_registry() => {
            HttpResponse::Ok().json(Probe::degraded("registry-unavailable"))
        }
        Err(error) => {
            tracing::warn!(%error, "not ready");
            let status = match error {
                RegistryError::VersionMismatch { .. } => "registry-version",
                _ => "registry-unavailable",
            };
            HttpResponse::ServiceUnavailable().json(Probe::not_ready(status))
        }
    }
}

/// Whether the registry takes writes; its version must be ours.
async fn registry_takes_writes(state: &AppState) -> Result<bool, RegistryError> {
    let asked = async {
        state.registry.check_version().await?;
        Ok(!state.registry.is_read_only().await?)
    };
    let late = |_elapsed| RegistryError::Unavailable {
        reason: format!("no answer within {} ms", PROBE_LIMIT.as_millis()),
    };
    tokio::time::timeout(PROBE_LIMIT, asked).await.map_err(late)?
}

/// Figures for Prometheus, in the text format of OpenMetrics.
#[utoipa::path(tag = "service", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
#[get("/metrics")]
pub(crate) async fn metrics(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
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
pub(crate) async fn problem_type(code: web::Path<String>) -> ApiResult<HttpResponse> {
    let kind = Kind::by_code(&code).ok_or_else(|| Problem::new(Kind::NoSuchRoute))?;
    Ok(HttpResponse::Ok().json(ProblemType::from(kind)))
}
