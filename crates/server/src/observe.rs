//! The outermost middleware: every request gets a trace, a deadline, its line in the log and its place in the
//! metrics, and every refusal its trace id.
//!
//! Invariant: whatever happens inside (a refusal, a panic, the deadline), the client gets a well-formed
//! answer, and the cause of a 5xx is logged exactly once, here. It knows nothing of tenants beyond what the
//! extractors note down.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use futures_util::FutureExt;
use model::TenantId;
use tracing::Instrument;

use crate::{
    openapi::Routes,
    problem::{Kind, Problem},
    state::AppState,
    trace::Trace,
};

/// What the extractors tell the middleware about a request.
#[derive(Debug, Clone, Default)]
pub struct Notes(Rc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    tenant: RefCell<Option<(TenantId, String)>>,
    awaits_body: Cell<bool>,
}

impl Notes {
    /// Notes that the request belongs to this laboratory.
    pub fn tenant(&self, id: TenantId, slug: &str) {
        *self.0.tenant.borrow_mut() = Some((id, slug.to_owned()));
    }

    /// Notes whether the client still owes a part of its body. A request that is given up meanwhile is the
    /// client's fault.
    pub fn awaits_body(&self, awaits: bool) {
        self.0.awaits_body.set(awaits);
    }
}

struct Seen {
    method: Method,
    path: String,
    trace: Trace,
    trace_id: String,
    notes: Notes,
    started: Instant,
}

/// See the module.
pub async fn observe(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let state = req
        .app_data::<Data<AppState>>()
        .expect("the application is built with its state")
        .clone();
    let known = req
        .app_data::<Data<Routes>>()
        .expect("the application is built with its routes")
        .clone();
    let in_flight = state.lifecycle.enter();
    let traceparent = req
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let trace = Trace::from_header(traceparent);
    let seen = Seen {
        method: req.method().clone(),
        path: req.path().to_owned(),
        trace,
        trace_id: trace.id(),
        notes: Notes::default(),
        started: Instant::now(),
    };
    req.extensions_mut().insert(seen.trace);
    req.extensions_mut().insert(seen.notes.clone());

    // HEAD is GET whose body is not sent: routes need not know, and the connection, which has seen the
    // method, sends none.
    if req.method() == Method::HEAD {
        req.head_mut().method = Method::GET;
    }

    let span = tracing::info_span!("request", trace_id = %seen.trace_id);
    let work = AssertUnwindSafe(next.call(req)).catch_unwind();
    let outcome = tokio::time::timeout(state.limits.request_timeout, work)
        .instrument(span)
        .await;
    let answered = match outcome {
        Ok(Ok(answered)) => answered,
        Ok(Err(panic)) => Err(Problem::internal(panic_text(panic.as_ref())).into()),
        Err(_elapsed) if seen.notes.0.awaits_body.get() => {
            Err(Problem::new(Kind::BodyTooSlow).closing().into())
        }
        Err(_elapsed) => Err(Problem::caused(Kind::DeadlinePassed, "the request's deadline passed").into()),
    };
    let route = route(&known, &seen, &answered);
    let finished = finish(&seen, answered, state.lifecycle.is_closing());
    let status = match &finished {
        Ok(response) => response.status(),
        Err(problem) => problem.status_code(),
    };
    report(&state, &seen, route, status);
    drop(in_flight);
    finished.map_err(Into::into)
}

/// The pattern of the route that was taken. Asked for afterwards, when the framework has found it once:
/// before, it would be searched for twice. Where the request is gone (a panic, the deadline) our own list of
/// routes must do.
fn route(known: &Routes, seen: &Seen, answered: &Result<ServiceResponse<impl MessageBody>, Error>) -> String {
    let found = match answered {
        Ok(response) => response.request().match_pattern(),
        Err(_gone) => known.pattern(&seen.path),
    };
    found.unwrap_or_else(|| "unmatched".to_owned())
}

/// Dresses the answer. An error that reached this far has no request to answer on any more; it is rendered by
/// [`Problem`] itself, with the trace id.
fn finish(
    seen: &Seen,
    answered: Result<ServiceResponse<impl MessageBody + 'static>, Error>,
    closing: bool,
) -> Result<ServiceResponse<BoxBody>, Problem> {
    let mut response = match answered {
        Err(error) => {
            let problem = as_problem(&error, seen);
            log_cause(seen, &problem);
            return Err(problem);
        }
        Ok(response) => match response.response().error().map(|error| as_problem(error, seen)) {
            None => response.map_into_boxed_body(),
            Some(problem) => {
                log_cause(seen, &problem);
                response.into_response(problem.error_response())
            }
        },
    };
    dress(response.headers_mut(), seen);
    if closing {
        response
            .response_mut()
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

fn dress(headers: &mut HeaderMap, seen: &Seen) {
    let fixed = |text| HeaderValue::from_static(text);
    if let Ok(trace) = HeaderValue::from_str(&seen.trace.to_string()) {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, fixed("DENY"));
    headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
    if seen.path.starts_with("/api/") && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, fixed("no-store"));
    }
}

/// The problem inside an error, or the nearest one to an error of the framework.
fn as_problem(error: &Error, seen: &Seen) -> Problem {
    if let Some(problem) = error.as_error::<Problem>() {
        return problem.traced(seen.trace_id.clone());
    }
    let problem = match error.as_response_error().status_code() {
        StatusCode::NOT_FOUND => Problem::new(Kind::NoSuchRoute),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(Kind::MethodNotAllowed),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::BodyTooLarge).closing(),
        status if status.is_client_error() => Problem::with(Kind::BadQuery, error.to_string()),
        _ => Problem::internal(error),
    };
    problem.traced(seen.trace_id.clone())
}

fn log_cause(seen: &Seen, problem: &Problem) {
    if let Some(cause) = problem.cause() {
        tracing::error!(
            trace_id = %seen.trace_id, method = %seen.method, path = %seen.path, code = problem.kind().code(),
            cause, "request failed"
        );
    }
}

fn report(state: &AppState, seen: &Seen, route: String, status: StatusCode) {
    let took: Duration = seen.started.elapsed();
    let tenant = seen.notes.0.tenant.borrow();
    state
        .metrics
        .request(&seen.method, route, status, took, tenant.as_ref());
    let slug = tenant.as_ref().map(|(_, slug)| slug.as_str());
    tracing::info!(
        trace_id = %seen.trace_id, method = %seen.method, path = %seen.path, status = status.as_u16(),
        took_ms = took.as_secs_f64() * 1e3, tenant.slug = slug, "request"
    );
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("a handler panicked: {said}")
}
