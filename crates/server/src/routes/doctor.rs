//! The doctor: what does not fit together in registry, servers and archives.

use actix_web::{HttpResponse, get, post, web};
use model::{ServerName, Slug};
use provisioner::{Examined, Finding, Reachable, Report, RoleCreator};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{IdempotencyKey, OperatorCaller, Params},
    problem::ApiResult,
    response,
    state::AppState,
};

/// How thoroughly to look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DoctorQuery {
    /// Also open each laboratory's database and read its own migration history; false unless given. That
    /// takes some 10 to 30 ms a laboratory: for a fleet of thousands, which would not be done within the time
    /// limit of a request, there is `tenantctl doctor --deep`.
    deep: Option<bool>,
}

/// What an examination found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportView {
    /// How many findings are left, after fixing.
    left: usize,
    /// Errors first.
    findings: Vec<FindingView>,
    examined: ExaminedView,
    /// Databases of others that every laboratory's role can connect to. PostgreSQL makes them so; these are
    /// no findings.
    reachable: Vec<ReachableView>,
    /// Roles of others that could let themselves into every laboratory, which PostgreSQL allows up to version
    /// 15. No findings either.
    role_creators: Vec<RoleCreatorView>,
    took_ms: u64,
}

/// A database of others that is open to every role on its server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReachableView {
    #[schema(value_type = String)]
    server: ServerName,
    #[schema(example = "postgres")]
    database: String,
    owner: String,
    /// What every role may do with it.
    #[schema(example = "CONNECT, TEMPORARY")]
    rights: String,
}

/// A role with CREATEROLE.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleCreatorView {
    #[schema(value_type = String)]
    server: ServerName,
    role: String,
}

/// One thing that is not as it should be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingView {
    /// A stable word.
    #[schema(example = "orphan_database")]
    kind: &'static str,
    /// `error` or `warning`.
    #[schema(example = "warning")]
    severity: &'static str,
    server: Option<ServerName>,
    /// Which database, role, operation, laboratory or file.
    subject: String,
    /// The laboratory that it concerns, where one does.
    slug: Option<Slug>,
    /// What was seen.
    seen: String,
    /// What to do.
    advice: String,
    /// Whether `POST /doctor/fixes` may fix it.
    mendable: bool,
    /// Whether it was fixed by this call.
    mended: bool,
    /// Why it could not be fixed, where that was tried.
    not_mended: Option<String>,
}

/// How much was looked at.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExaminedView {
    servers: usize,
    laboratories: usize,
    databases: usize,
    roles: usize,
    operations: usize,
    archives: usize,
    /// Databases whose own migration history was read.
    histories: usize,
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        Self {
            left: report.left(),
            findings: report.findings.into_iter().map(FindingView::from).collect(),
            examined: report.examined.into(),
            reachable: report.reachable.into_iter().map(ReachableView::from).collect(),
            role_creators: report
                .role_creators
                .into_iter()
                .map(RoleCreatorView::from)
                .collect(),
            took_ms: report.took_ms,
        }
    }
}

impl From<Reachable> for ReachableView {
    fn from(reachable: Reachable) -> Self {
        Self {
            server: reachable.server,
            database: reachable.open.database,
            owner: reachable.open.owner,
            rights: reachable.open.rights,
        }
    }
}

impl From<RoleCreator> for RoleCreatorView {
    fn from(creator: RoleCreator) -> Self {
        Self {
            server: creator.server,
            role: creator.role,
        }
    }
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.as_str(),
            severity: finding.severity.as_str(),
            server: finding.server,
            subject: finding.subject,
            slug: finding.slug,
            seen: finding.seen,
            advice: finding.advice,
            mendable: finding.fixable,
            mended: finding.fixed,
            not_mended: finding.not_fixed,
        }
    }
}

impl From<Examined> for ExaminedView {
    fn from(examined: Examined) -> Self {
        let Examined {
            servers,
            laboratories,
            databases,
            roles,
            operations,
            archives,
            histories,
        } = examined;
        Self {
            servers,
            laboratories,
            databases,
            roles,
            operations,
            archives,
            histories,
        }
    }
}

/// Looks through the whole fleet and says what is not as it should be, each with what to do.
#[utoipa::path(tag = "operators", params(DoctorQuery), responses((status = 200, body = ReportView)))]
#[get("/doctor")]
pub(crate) async fn examine(
    _operator: OperatorCaller,
    query: Params<DoctorQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let report = state.provisioner.examine(query.0.deep.unwrap_or(false)).await?;
    Ok(response::ok(&ReportView::from(report)))
}

/// Looks, and fixes what is safe to fix: nothing that may hold a laboratory's data is dropped, and no
/// recorded version is lowered. Asked again it finds what is left.
#[utoipa::path(tag = "operators", params(DoctorQuery), responses((status = 200, body = ReportView)))]
#[post("/doctor/fixes")]
pub(crate) async fn mend(
    operator: OperatorCaller,
    query: Params<DoctorQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    let report = state.provisioner.fix(query.0.deep.unwrap_or(false), by).await?;
    Ok(response::ok(&ReportView::from(report)))
}
