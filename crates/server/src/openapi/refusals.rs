//! Which refusals an operation can answer, worked out of what it takes: a token, an id, a body, a version, a
//! key.
//!
//! So a handler cannot forget one, and none lists a status that its own extractors never give. 5xx are the
//! `default`.

use std::collections::BTreeSet;

use utoipa::openapi::{
    Content, Ref, RefOr, Response, ResponseBuilder,
    path::{Operation, ParameterIn},
    security::SecurityRequirement,
};

/// Operations whose body names records: one that does not exist is a 404, as in a path.
const NAMES_IN_BODY: [&str; 3] = ["/api/v1/orders", "/api/v1/verifications", "/api/v1/releases"];

/// Adds the refusals of one operation, and the `default` for failures on our side.
pub(super) fn add(method: &str, path: &str, operation: &mut Operation) {
    for status in statuses(method, path, operation) {
        let response = RefOr::T(problem(meaning(status)));
        (operation.responses.responses)
            .entry(status.to_string())
            .or_insert(response);
    }
    (operation.responses.responses)
        .entry("default".to_owned())
        .or_insert_with(|| {
            RefOr::T(problem(
                "A failure on our side; `code` is one of the types listed at /problems",
            ))
        });
}

fn statuses(method: &str, path: &str, operation: &Operation) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    let changes = method != "get";
    let open = operation.security.as_deref() == Some(&[SecurityRequirement::default()]);
    if !open {
        found.extend([401, 403]);
        if changes {
            found.insert(409);
        }
    }
    if path.ends_with("/login") || path.ends_with("/invitations/accept") {
        found.extend([401, 429]);
    }
    if path.ends_with("/me/password") {
        found.insert(429);
    }
    if path.contains("/auth/") {
        found.insert(403);
    }
    if path.ends_with("/invitations/accept") {
        found.insert(409);
    }
    if operation.request_body.is_some() {
        found.extend([400, 408, 413, 415, 422]);
    }
    // One export of a laboratory runs at a time in a process.
    if path.ends_with("/export") || path.ends_with("/exports/archive") {
        found.insert(409);
    }
    if changes && NAMES_IN_BODY.contains(&path) {
        found.insert(404);
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let required = parameter.required == utoipa::openapi::Required::True;
        match (&parameter.parameter_in, parameter.name.as_str()) {
            (ParameterIn::Path, _) => found.extend([404]),
            (ParameterIn::Query | ParameterIn::QueryString, _) => found.extend([400, 422]),
            (ParameterIn::Header, "If-Match") if required => found.extend([400, 412, 428]),
            (ParameterIn::Header, "If-Match") => found.extend([400, 412]),
            (ParameterIn::Header, "Idempotency-Key") => found.extend([400, 409, 422]),
            (ParameterIn::Header | ParameterIn::Cookie, _) => {}
        }
    }
    found
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The query, a header or the body cannot be read",
        401 => "No valid token, or a log-in that was refused",
        403 => "The role, the token's audience or the laboratory's state does not allow it",
        404 => "There is no such record in this laboratory",
        408 => "The body did not come in time",
        409 => "The state of things does not allow it",
        412 => "The record has changed since it was read",
        413 => "The body is too large",
        415 => "The body's content type is not taken",
        422 => "A value is missing, wrong or unknown",
        428 => "If-Match is missing",
        429 => "Too many failed attempts",
        _ => "A refusal",
    }
}

fn problem(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/problem+json",
            Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem")))),
        )
        .build()
}
