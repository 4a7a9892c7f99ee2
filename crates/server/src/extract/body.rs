//! Bodies: read up to the limit and no further, JSON refused with its position, unknown fields refused by name.
//!
//! Invariant: for a request without a valid token no more than [`PUBLIC_BYTES_MAX`] are read, and those in
//! [`PUBLIC_TIME_MAX`]. Which limit applies is the extractor's type: [`PublicBody`] before log-in; [`Body`] and [`MaybeBody`]
//! for JSON, [`RawBody`] for files, all three behind a token.

use std::time::Duration;

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header,
    web::{Bytes, BytesMut},
};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::caller::{principal, state};
use crate::{
    observe::Notes,
    problem::{Answer, Kind, Problem},
};

/// The largest body of a call that needs no token: a password of 128 characters, each of them escaped, has 1.5 KiB.
const PUBLIC_BYTES_MAX: usize = 16 * 1024;
/// The longest time in which such a body may come.
const PUBLIC_TIME_MAX: Duration = Duration::from_secs(10);
/// The largest JSON body.
const JSON_BYTES_MAX: usize = 1024 * 1024;

/// What may be sent, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Anybody; JSON.
    Public,
    /// JSON of somebody with a token.
    Json,
    /// A file of somebody with a token.
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
            let bytes = read(&req, &mut payload, Class::Public).await?;
            Ok(Self(json(&req, &bytes)?))
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
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            let bytes = read(&req, &mut payload, Class::Json).await?;
            let value = json(&req, &bytes)?;
            Ok(Self { value, bytes })
        }
        .boxed_local()
    }
}

/// A JSON body that may be left out: then it is the default.
#[derive(Debug)]
pub struct MaybeBody<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for MaybeBody<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, mut payload) = (req.clone(), payload.take());
        async move {
            match read(&req, &mut payload, Class::Json).await {
                Ok(bytes) => Ok(Self(json(&req, &bytes)?)),
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
            let bytes = read(&req, &mut payload, Class::File).await?;
            Ok(Self {
                content_type: req.content_type().to_ascii_lowercase(),
                bytes,
            })
        }
        .boxed_local()
    }
}

/// Reads the whole body, or refuses: at once without the token that its class needs or when its stated length passes the
/// limit, else as soon as it does.
async fn read(req: &HttpRequest, payload: &mut Payload, class: Class) -> Answer<Bytes> {
    if class != Class::Public {
        principal(req)?;
    }
    let largest = state(req).limits.body_max_bytes;
    let limit = match class {
        Class::Public => largest.min(PUBLIC_BYTES_MAX),
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
    Ok(bytes.freeze())
}

async fn collect(payload: &mut Payload, limit: usize) -> Answer<BytesMut> {
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

/// Reads JSON of this type.
fn json<T: DeserializeOwned>(req: &HttpRequest, bytes: &[u8]) -> Answer<T> {
    let content_type = req.content_type().to_ascii_lowercase();
    if content_type != "application/json" && !content_type.ends_with("+json") {
        return Err(wrong_type(&content_type, "application/json"));
    }
    parse_json(bytes)
}

/// Reads JSON, and names the field of whatever is refused.
fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    if let Some(pointer) = unstorable_field(bytes) {
        let detail = format!("{pointer} holds the character U+0000, which cannot be stored; take it out.");
        return Err(Problem::field(Kind::Invalid, &pointer, detail));
    }
    // Every body is an object. Serde would take an array as well, by the order in which the fields are declared.
    if bytes.trim_ascii_start().first() == Some(&b'[')
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    {
        return Err(Problem::field(
            Kind::Invalid,
            "",
            "the body is an array; send an object with named fields",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = error.path().to_string();
        refused_json(bytes, &pointer, error.inner())
    })?;
    deserializer
        .end()
        .map_err(|error| refused_json(bytes, ".", &error))?;
    Ok(value)
}

/// The first text that holds U+0000, which JSON can write and PostgreSQL cannot store.
fn unstorable_field(bytes: &[u8]) -> Option<String> {
    fn find(value: &serde_json::Value, path: String) -> Option<String> {
        match value {
            serde_json::Value::String(text) => text.contains('\0').then_some(path),
            serde_json::Value::Array(items) => {
                let mut items = items.iter().enumerate();
                items.find_map(|(at, item)| find(item, format!("{path}[{at}]")))
            }
            serde_json::Value::Object(fields) => fields.iter().find_map(|(name, field)| {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                find(field, path)
            }),
            _ => None,
        }
    }
    // Seldom there, so that bodies are parsed once as a rule.
    memchr::memmem::find(bytes, b"\\u0000")?;
    find(&serde_json::from_slice(bytes).ok()?, String::new())
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

/// What cannot be read as the type that is wanted. `path` is where that was found, "." for the whole.
fn refused_json(bytes: &[u8], path: &str, error: &serde_json::Error) -> Problem {
    let detail = error.to_string();
    // A value of another kind can look like wrong syntax to a type's parser.
    let is_json = std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    if !is_json && error.classify() != Category::Data {
        return Problem::with(Kind::MalformedJson, detail);
    }
    let kind = if detail.starts_with("unknown field") {
        Kind::UnknownField
    } else {
        Kind::Invalid
    };
    Problem::field(kind, &pointer(path, &detail), detail)
}

/// The field's name. Of a field that is unknown or missing serde names the object that it should be in, and the field in the
/// message.
fn pointer(path: &str, detail: &str) -> String {
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split('`').next());
    match (path, named) {
        (".", Some(name)) => name.to_owned(),
        (".", None) => String::new(),
        (path, Some(name)) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    }
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
