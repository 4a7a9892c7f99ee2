//! Refusals as RFC 9457 problem details.
//!
//! Invariant: a client of a 5xx reads the kind's constant sentence and a trace id; the cause goes to the log,
//! once, where the outermost middleware hands the answer over. This module decides nothing about a
//! laboratory's rules.

mod kind;
mod mapping;

use std::fmt;

use actix_web::{HttpResponse, ResponseError, body::BoxBody, http::StatusCode, http::header};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

pub use kind::Kind;

/// What is sent: `application/problem+json` of RFC 9457 with the extensions `code`, `errors` and `traceId`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// The address of the page that explains this type of problem, relative to the service's root.
    #[schema(example = "/problems/tenant-suspended")]
    pub r#type: String,
    /// One line, the same for every problem of the type.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The type's short word, for programs.
    pub code: &'static str,
    /// The single values or items that are to blame, when there are several.
    pub errors: Vec<ItemError>,
    /// The id under which the log knows this request; also in the `traceparent` header.
    pub trace_id: Option<String>,
}

/// One value or item that is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemError {
    /// Which value or item of the request, by its path in the body such as `items[3].id`, or a parameter's
    /// name. Empty when it is no single one.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
    /// The reason's short word, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The id of the record that the item names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

/// A refusal on its way out. Every handler and extractor fails with this one.
pub struct Problem(Box<Parts>);

/// Boxed, so that a `Result` stays small where all is well.
#[derive(Clone)]
struct Parts {
    kind: Kind,
    detail: Option<String>,
    errors: Vec<ItemError>,
    retry_after_s: Option<u32>,
    allow: Option<String>,
    closes_connection: bool,
    cause: Option<String>,
    trace_id: Option<String>,
}

impl Problem {
    /// A problem that says no more than its kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let retry_after_s = match kind {
            Kind::TenantProvisioning
            | Kind::RegistryUnavailable
            | Kind::TenantServerUnavailable
            | Kind::TenantLoginRefused => Some(2),
            Kind::DatabaseReadOnly => Some(10),
            Kind::PoolTimeout
            | Kind::ServerBusy
            | Kind::Busy
            | Kind::DeadlinePassed
            | Kind::TooManyAtOnce
            | Kind::IdempotencyInFlight => Some(1),
            Kind::VersionBehind | Kind::VersionAhead => Some(30),
            _ => None,
        };
        Self(Box::new(Parts {
            kind,
            detail: None,
            errors: Vec::new(),
            retry_after_s,
            allow: None,
            closes_connection: false,
            cause: None,
            trace_id: None,
        }))
    }

    /// A problem with a sentence for the client. On a 5xx the sentence goes to the log instead.
    #[must_use]
    pub fn with(kind: Kind, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(kind);
        problem.0.detail = Some(detail.into());
        problem
    }

    /// An internal error; `cause` is for the log alone.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::caused(Kind::Internal, cause)
    }

    /// A problem whose `cause` is for the log alone.
    #[must_use]
    pub fn caused(kind: Kind, cause: impl fmt::Display) -> Self {
        let mut problem = Self::new(kind);
        problem.0.cause = Some(cause.to_string());
        problem
    }

    /// A problem with one value of the request, which is named.
    #[must_use]
    pub fn field(kind: Kind, pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let item = ItemError {
            pointer: pointer.to_owned(),
            detail: detail.clone(),
            code: None,
            id: None,
        };
        Self::with(kind, detail).items(vec![item])
    }

    /// The values and items that are named as being to blame.
    #[must_use]
    pub fn pointers(&self) -> Vec<&str> {
        self.0.errors.iter().map(|item| item.pointer.as_str()).collect()
    }

    /// Names the field that is to blame, in place of what is named by now.
    #[must_use]
    pub fn blaming(mut self, pointer: &str) -> Self {
        match self.0.errors.as_mut_slice() {
            [only] => pointer.clone_into(&mut only.pointer),
            _ => {
                let detail = self.0.detail.clone();
                let item = ItemError {
                    pointer: pointer.to_owned(),
                    detail: detail.unwrap_or_else(|| self.0.kind.title().to_owned()),
                    code: None,
                    id: None,
                };
                self.0.errors = vec![item];
            }
        }
        self
    }

    /// The same with a field's name in the API in place of its name within.
    #[must_use]
    pub fn renaming(mut self, within: &str, name: &str) -> Self {
        for item in self.0.errors.iter_mut().filter(|item| item.pointer == within) {
            name.clone_into(&mut item.pointer);
        }
        self
    }

    /// Names the single values or items that are to blame.
    #[must_use]
    pub fn items(mut self, errors: Vec<ItemError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Lists the methods that would be taken.
    #[must_use]
    pub fn allow(mut self, methods: String) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Ends the connection after the answer: the client has unread body on its way.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.0.closes_connection = true;
        self
    }

    /// Which kind of problem it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the log says and the client does not read.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        let withheld = if self.0.kind.status().is_server_error() {
            self.0.detail.as_deref()
        } else {
            None
        };
        self.0.cause.as_deref().or(withheld)
    }

    /// The same problem under the trace id of its request.
    #[must_use]
    pub fn traced(&self, trace_id: String) -> Self {
        Self(Box::new(Parts {
            trace_id: Some(trace_id),
            ..(*self.0).clone()
        }))
    }

    fn body(&self) -> ProblemBody {
        let parts = &self.0;
        let detail = if parts.kind.status().is_server_error() {
            None
        } else {
            parts.detail.clone()
        };
        ProblemBody {
            r#type: parts.kind.address(),
            title: parts.kind.title(),
            status: parts.kind.status().as_u16(),
            detail: detail.unwrap_or_else(|| parts.kind.help().to_owned()),
            code: parts.kind.code(),
            errors: parts.errors.clone(),
            trace_id: parts.trace_id.clone(),
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({}, {:?})", self.0.kind.code(), self.0.detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.title())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.0.kind.status());
        response.content_type("application/problem+json");
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if self.0.kind.status() == StatusCode::UNAUTHORIZED {
            let error = match self.0.kind {
                Kind::TokenInvalid | Kind::TokenExpired => ", error=\"invalid_token\"",
                _ => "",
            };
            response.insert_header((
                header::WWW_AUTHENTICATE,
                format!("Bearer realm=\"tenantry\"{error}"),
            ));
        }
        if let Some(seconds) = self.0.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(methods) = &self.0.allow {
            response.insert_header((header::ALLOW, methods.clone()));
        }
        if self.0.closes_connection {
            response.force_close();
        }
        response.json(self.body())
    }
}

/// What an action of this service gives.
pub type ApiResult<T> = Result<T, Problem>;
