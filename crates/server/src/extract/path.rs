//! Ids in the path and parameters in the query.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use model::input;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::body::refused;
use crate::problem::{Kind, Problem};

/// The `{id}` of the path. A text that is no UUID names no record, so it is answered as one that does not
/// exist.
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
        let pairs = form_urlencoded::parse(req.query_string().as_bytes());
        let query = input::pairs(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())));
        ready(match input::read(query) {
            Ok(query) => Ok(Self(query)),
            Err(refusal) => Err(refused(&refusal, "the query", Kind::BadQuery, Kind::BadQuery)),
        })
    }
}
