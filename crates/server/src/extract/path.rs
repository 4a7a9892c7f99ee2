//! Ids in the path and parameters in the query.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::{Kind, Problem};

/// The `{id}` of the path. A text that is no UUID names no record, so it is answered as one that does not exist.
#[derive(Debug, Clone, Copy)]
pub struct PathId<T>(pub T);

impl<T: From<Uuid>> FromRequest for PathId<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = req
            .match_info()
            .get("id")
            .and_then(|text| Uuid::parse_str(text).ok());
        ready(match parsed {
            Some(id) => Ok(Self(T::from(id))),
            None => Err(Problem::with(
                Kind::NotFound,
                "The id in the path is not a UUID, so no record has it.",
            )),
        })
    }
}

/// The one text of the path, such as a test's code or a barcode. What cannot be one names no record.
#[derive(Debug, Clone)]
pub struct PathText(pub String);

/// Longer than any code or barcode of ours.
const PATH_TEXT_LENGTH_MAX: usize = 100;

impl FromRequest for PathText {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let text = web::Path::<String>::from_request(req, payload)
            .into_inner()
            .ok()
            .map(web::Path::into_inner);
        let sane = |text: &String| text.len() <= PATH_TEXT_LENGTH_MAX && !text.chars().any(char::is_control);
        ready(
            text.filter(sane)
                .map(Self)
                .ok_or_else(|| Problem::new(Kind::NotFound)),
        )
    }
}

/// The query string, refused when it holds what the call does not know.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let query =
            serde_urlencoded::Deserializer::new(form_urlencoded::parse(req.query_string().as_bytes()));
        ready(match serde_path_to_error::deserialize(query) {
            Ok(query) => Ok(Self(query)),
            Err(error) => {
                let detail = error.inner().to_string();
                let pointer = match error.path().to_string() {
                    path if path == "." => detail.split('`').nth(1).unwrap_or_default().to_owned(),
                    path => path,
                };
                Err(Problem::field(Kind::BadQuery, &pointer, detail))
            }
        })
    }
}
