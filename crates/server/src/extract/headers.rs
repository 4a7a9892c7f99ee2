//! `If-Match`, `If-None-Match` and `Idempotency-Key`.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header};

use crate::problem::{ApiResult, Kind, Problem};

/// The most characters of an idempotency key.
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 128;

/// The version that the client has read, from a strong `If-Match: "7"`.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub i32);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(if_match(req))
    }
}

fn if_match(req: &HttpRequest) -> ApiResult<IfMatch> {
    let Some(value) = req.headers().get(header::IF_MATCH) else {
        return Err(Problem::new(Kind::PreconditionRequired));
    };
    let text = value.to_str().unwrap_or_default().trim();
    let version = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|v| v.parse().ok());
    version.map(IfMatch).ok_or_else(|| {
        let detail =
            format!("If-Match must be one strong entity tag as read, such as \"7\", and not {text}.");
        Problem::with(Kind::BadHeader, detail)
    })
}

/// Whether the client already has the answer with this entity tag (given with its quotes).
#[must_use]
pub fn if_none_match(req: &HttpRequest, etag: &str) -> bool {
    req.headers()
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // If-None-Match compares weakly (RFC 9110, 13.1.2): W/"7" and "7" are the same.
        .any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
        })
}

/// The key under which a creating request may be sent again; absent when the client takes the risk of a
/// double.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(idempotency_key(req))
    }
}

fn idempotency_key(req: &HttpRequest) -> ApiResult<IdempotencyKey> {
    let Some(value) = req.headers().get("idempotency-key") else {
        return Ok(IdempotencyKey(None));
    };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_LENGTH_MAX || key.bytes().any(|b| b.is_ascii_control()) {
        let detail =
            format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable characters.");
        return Err(Problem::with(Kind::BadHeader, detail));
    }
    Ok(IdempotencyKey(Some(key.to_owned())))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn if_match_takes_one_strong_tag() {
        let with = |value: &str| {
            if_match(
                &TestRequest::default()
                    .insert_header(("if-match", value))
                    .to_http_request(),
            )
        };
        assert_eq!(with("\"7\"").unwrap().0, 7);
        for bad in ["7", "W/\"7\"", "\"7\", \"8\"", "\"x\"", "*"] {
            assert_eq!(with(bad).unwrap_err().kind(), Kind::BadHeader, "{bad}");
        }
        let none = TestRequest::default().to_http_request();
        assert_eq!(if_match(&none).unwrap_err().kind(), Kind::PreconditionRequired);
    }

    #[test]
    fn if_none_match_compares_weakly_in_a_list() {
        let has = |value: &str| {
            if_none_match(
                &TestRequest::default()
                    .insert_header(("if-none-match", value))
                    .to_http_request(),
                "\"7\"",
            )
        };
        assert!(has("\"7\"") && has("\"1\", W/\"7\"") && has("*"));
        assert!(!has("\"8\"") && !has("7"));
    }
}
