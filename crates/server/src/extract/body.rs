//! Bodies: read up to the limit and no further, JSON refused with its position, unknown fields refused by
//! name.
//!
//! Invariant: for a request without a valid token no more than [`SMALL_BYTES_MAX`] are read, and those in
//! [`PUBLIC_TIME_MAX`]. Which limit applies is the extractor's type: [`PublicBody`] before log-in; [`Body`]
//! and [`MaybeBody`] for JSON, [`RawBody`] for files, all three behind a token. Larger bodies of all
//! connections share one budget of memory ([`crate::bodies`]). What a JSON document may look like:
//! [`model::input`].

use std::time::Duration;

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header,
    web::{Bytes, BytesMut},
};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture};
use model::input::{self, Node, Refusal, RefusalKind};
use serde::de::DeserializeOwned;

use super::caller::{principal, state};
use crate::{
    bodies::Held,
    observe::Notes,
    problem::{ApiResult, ItemError, Kind, Problem},
};

/// The largest body of a call that needs no token: a password of 128 characters, each of them escaped, has
/// 1.5 KiB. A body that is announced as no larger than this is not counted in the budget of all bodies.
const SMALL_BYTES_MAX: usize = 16 * 1024;
/// The longest time in which such a body may come.
const PUBLIC_TIME_MAX: Duration = Duration::from_secs(10);
/// The largest JSON body.
const JSON_BYTES_MAX: usize = 1024 * 1024;

/// What may be sent, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Anybody; JSON.
    Public,
    /// JSON of a caller with a token.
    Json,
    /// A file of a caller with a token.
    File,
}

/// A JSON body of a call that needs no token.
#[derive(Debug)]
pub struct PublicBody<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for PublicBody<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            let whole = read(&req, &mut payload, Class::Public).await?;
            Ok(Self(json(&req, &whole.bytes)?))
        }
        .boxed_local()
    }
}

/// A JSON body, together with the bytes that it was read from (an idempotency key is tied to them).
#[derive(Debug)]
pub struct Body<T> {
    /// The parsed body.
    pub value: T,
    /// The bytes as they came.
    pub bytes: Bytes,
    _held: Option<Held>,
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            let Whole { bytes, held } = read(&req, &mut payload, Class::Json).await?;
            let value = json(&req, &bytes)?;
            Ok(Self {
                value,
                bytes,
                _held: held,
            })
        }
        .boxed_local()
    }
}

/// A JSON body that may be left out, or be null: then it is the default.
#[derive(Debug)]
pub struct MaybeBody<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for MaybeBody<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            match read(&req, &mut payload, Class::Json).await {
                Ok(whole) => Ok(Self(json::<Option<T>>(&req, &whole.bytes)?.unwrap_or_default())),
                Err(problem) if problem.kind() == Kind::BodyEmpty => Ok(Self(T::default())),
                Err(problem) => Err(problem),
            }
        }
        .boxed_local()
    }
}

/// A body of any type, not parsed.
#[derive(Debug)]
pub struct RawBody {
    /// The content type without its parameters, in lower case.
    pub content_type: String,
    /// The bytes as they came.
    pub bytes: Bytes,
    _held: Option<Held>,
}

impl RawBody {
    /// The refusal of a content type that this call does not take.
    #[must_use]
    pub fn wrong_type(&self, accepted: &str) -> Problem {
        wrong_type(&self.content_type, accepted)
    }
}

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            let Whole { bytes, held } = read(&req, &mut payload, Class::File).await?;
            Ok(Self {
                content_type: media_type(&req)?,
                bytes,
                _held: held,
            })
        }
        .boxed_local()
    }
}

/// A whole body, and the part of the budget that it has for as long as it is kept.
struct Whole {
    bytes: Bytes,
    held: Option<Held>,
}

/// Reads the whole body, or refuses: at once without the token that its class needs or when its stated length
/// passes the limit, else as soon as it does.
async fn read(req: &HttpRequest, payload: &mut Payload, class: Class) -> ApiResult<Whole> {
    if class != Class::Public {
        principal(req)?;
    }
    let largest = state(req).limits.body_max_bytes;
    let limit = match class {
        Class::Public => largest.min(SMALL_BYTES_MAX),
        Class::Json => largest.min(JSON_BYTES_MAX),
        Class::File => largest,
    };
    let stated = req
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    if let Some(encoding) = req.headers().get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let detail = "Send the body without Content-Encoding.";
        return Err(Problem::with(Kind::UnsupportedMediaType, detail));
    }
    // One whose length is not announced may become as large as the limit.
    let length = stated.map_or(limit, |length| usize::try_from(length).unwrap_or(limit));
    let held = if class == Class::Public || length <= SMALL_BYTES_MAX {
        None
    } else {
        Some(state(req).bodies.hold(length).await?)
    };
    let notes = req.extensions().get::<Notes>().cloned().unwrap_or_default();
    notes.awaits_body(true);
    let collected = match class {
        Class::Public => tokio::time::timeout(PUBLIC_TIME_MAX, collect(payload, limit))
            .await
            .unwrap_or_else(|_elapsed| Err(Problem::new(Kind::BodyTooSlow).closing())),
        // The deadline of the whole request is theirs.
        Class::Json | Class::File => collect(payload, limit).await,
    };
    notes.awaits_body(false);
    let bytes = collected?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(Kind::BodyEmpty));
    }
    let bytes = bytes.freeze();
    Ok(Whole { bytes, held })
}

async fn collect(payload: &mut Payload, limit: usize) -> ApiResult<BytesMut> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::with(Kind::BodyUnreadable, error.to_string()))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The content type without its parameters, in lower case. Every text that is read here is UTF-8.
fn media_type(req: &HttpRequest) -> ApiResult<String> {
    let header = req.headers().get(header::CONTENT_TYPE);
    let text = header.map_or(Ok(""), |value| value.to_str()).map_err(|_| {
        let detail = "Content-Type holds other characters than ASCII.";
        Problem::with(Kind::UnsupportedMediaType, detail)
    })?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let utf8 = ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| value.eq_ignore_ascii_case(known));
        if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
            let shown: String = value.chars().take(40).collect();
            let detail =
                format!("Bodies are read as UTF-8 only, and not as {shown:?}: send charset=utf-8, or none.");
            return Err(Problem::with(Kind::UnsupportedMediaType, detail));
        }
    }
    Ok(essence)
}

/// Reads JSON of this type.
fn json<T: DeserializeOwned>(req: &HttpRequest, bytes: &[u8]) -> ApiResult<T> {
    let content_type = media_type(req)?;
    if content_type != "application/json" && !content_type.ends_with("+json") {
        return Err(wrong_type(&content_type, "application/json"));
    }
    parse_json(bytes)
}

/// Reads JSON, and names the field of whatever is refused.
fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let document: Node = serde_json::from_slice(bytes).map_err(|error| {
        let detail = error.to_string();
        if detail.starts_with("recursion limit exceeded") {
            return Problem::field(Kind::Invalid, "", "the body is nested too deeply");
        }
        Problem::with(Kind::MalformedJson, detail)
    })?;
    input::read(document).map_err(|refusal| refused(&refusal, "the body", Kind::Invalid, Kind::UnknownField))
}

/// A document that was refused: `whole` is what the whole of it is called.
pub(super) fn refused(refusal: &Refusal, whole: &str, invalid: Kind, unknown: Kind) -> Problem {
    let kind = match refusal.kind {
        RefusalKind::Invalid => invalid,
        RefusalKind::Unknown => unknown,
        RefusalKind::Unstorable => Kind::Invalid,
    };
    let pointer = refusal.pointer();
    let detail = if pointer.is_empty() {
        format!("{whole}: {refusal}")
    } else {
        refusal.to_string()
    };
    let item = ItemError {
        pointer,
        detail: refusal.message.clone(),
        code: None,
        id: None,
    };
    Problem::with(kind, detail).items(vec![item])
}

fn too_large(limit: usize) -> Problem {
    Problem::with(
        Kind::BodyTooLarge,
        format!("A body may have at most {limit} bytes."),
    )
    .closing()
}

fn wrong_type(given: &str, accepted: &str) -> Problem {
    let detail = if given.is_empty() {
        format!("Send the body with Content-Type: {accepted}.")
    } else {
        format!("{given:?} is not taken here; send {accepted}.")
    };
    Problem::with(Kind::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only how they are refused is tried")]
    struct Outer {
        family_name: String,
        items: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only how they are refused is tried")]
    struct Inner {
        id: u32,
    }

    #[test]
    fn whatever_is_refused_is_named() {
        for (body, kind, pointer) in [
            (r#"{"familyName": 1, "items": []}"#, Kind::Invalid, "familyName"),
            (
                r#"{"familyName": null, "items": []}"#,
                Kind::Invalid,
                "familyName",
            ),
            (r#"{"items": []}"#, Kind::Invalid, "familyName"),
            (
                r#"{"familyName": "a", "items": [{"id": 1}, {"id": "b"}]}"#,
                Kind::Invalid,
                "items[1].id",
            ),
            (
                r#"{"familyName": "a", "items": [{}]}"#,
                Kind::Invalid,
                "items[0].id",
            ),
            (
                r#"{"familyName": "a", "items": [{"id": 1, "x": 2}]}"#,
                Kind::UnknownField,
                "items[0].x",
            ),
            (r#"{"familyNam": "a"}"#, Kind::UnknownField, "familyNam"),
            (
                r#"{"familyName": "a\u0000b", "items": []}"#,
                Kind::Invalid,
                "familyName",
            ),
            ("[]", Kind::Invalid, ""),
            (r#"["a", []]"#, Kind::Invalid, ""),
            (
                r#"{"familyName": "a", "items": [[1]]}"#,
                Kind::Invalid,
                "items[0]",
            ),
            (
                r#"{"familyName": "a", "items": [], "items": []}"#,
                Kind::Invalid,
                "items",
            ),
        ] {
            let problem = parse_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(
                (problem.kind(), problem.pointers()),
                (kind, vec![pointer]),
                "{body}"
            );
        }
        for body in [
            r#"{"familyName": "#,
            r#"{"familyName": "a", "items": []} x"#,
            "nothing",
        ] {
            let problem = parse_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), Kind::MalformedJson, "{body}");
        }
    }
}
