//! The shapes of success: entity tags, created records, pages.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use lab::{PAGE_ROWS_MAX, Page, idempotency::StoredAnswer};
use serde::Serialize;

use crate::problem::{ApiResult, Kind, Problem};

/// A strong entity tag of a record's version.
#[must_use]
pub fn etag(version: i32) -> String {
    format!("\"{version}\"")
}

/// 200 with the record.
#[must_use]
pub fn ok(record: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(record)
}

/// 200 with the record and its entity tag.
#[must_use]
pub fn ok_tagged(version: i32, record: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::ETAG, etag(version)))
        .json(record)
}

/// A record that was just made, as its answer: it may be sent again to a request that is repeated.
#[derive(Debug, Clone)]
pub struct Created {
    /// 201, or 202 when the work goes on, or 200 when something was added to a record that has an address
    /// already.
    pub status: StatusCode,
    /// The address of what is new.
    pub location: Option<String>,
    /// Its entity tag, if it has versions.
    pub etag: Option<String>,
    /// Its JSON.
    pub body: Vec<u8>,
}

impl Created {
    /// 201 with the record.
    ///
    /// # Panics
    /// Never: the records of `lab` all have a JSON form.
    #[must_use]
    pub fn of(location: String, version: Option<i32>, record: &impl Serialize) -> Self {
        let body = serde_json::to_vec(record).expect("a record with text keys has a JSON form");
        Self {
            status: StatusCode::CREATED,
            location: Some(location),
            etag: version.map(etag),
            body,
        }
    }

    /// 202 with the record: the work is taken on.
    ///
    /// # Panics
    /// Never, as [`Created::of`].
    #[must_use]
    pub fn accepted(location: String, record: &impl Serialize) -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            ..Self::of(location, None, record)
        }
    }

    /// 200 with the record as it is now.
    ///
    /// # Panics
    /// Never, as [`Created::of`].
    #[must_use]
    pub fn added(version: i32, record: &impl Serialize) -> Self {
        Self {
            status: StatusCode::OK,
            location: None,
            ..Self::of(String::new(), Some(version), record)
        }
    }

    /// The answer itself.
    #[must_use]
    pub fn answer(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/json");
        if let Some(location) = self.location {
            response.insert_header((header::LOCATION, location));
        }
        if let Some(etag) = self.etag {
            response.insert_header((header::ETAG, etag));
        }
        response.body(self.body)
    }

    /// The answer as it is kept beside the record.
    #[must_use]
    pub fn stored(self) -> StoredAnswer {
        let location = self.location.map(|location| ("location".to_owned(), location));
        let etag = self.etag.map(|etag| ("etag".to_owned(), etag));
        let headers: BTreeMap<_, _> = location.into_iter().chain(etag).collect();
        StoredAnswer {
            status: self.status.as_u16(),
            headers,
            body: self.body,
        }
    }
}

/// An answer that was kept, given again.
///
/// # Errors
/// 500 when it was not kept by this service.
pub fn stored(answer: StoredAnswer) -> ApiResult<HttpResponse> {
    let status = StatusCode::from_u16(answer.status).map_err(Problem::internal)?;
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    Ok(response.content_type("application/json").body(answer.body))
}

/// 200 with one page of a list, and the next one's address in the `Link` header (RFC 8288).
#[must_use]
pub fn page<T: Serialize>(req: &HttpRequest, page: &Page<T>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(next) = &page.next {
        response.insert_header((header::LINK, next_link(req.path(), req.query_string(), next)));
    }
    response.json(page)
}

/// The usual number of items of a page.
const LIMIT_DEFAULT: u32 = 50;

/// The page size that was asked for.
///
/// # Errors
/// 422 when it is out of range.
pub fn limit(asked: Option<u32>) -> ApiResult<u32> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=PAGE_ROWS_MAX => Ok(limit),
        limit => {
            let detail = format!("limit must be between 1 and {PAGE_ROWS_MAX}, not {limit}.");
            Err(Problem::field(Kind::Invalid, "limit", detail))
        }
    }
}

/// The refusal of a cursor that this service never gave out.
#[must_use]
pub fn bad_cursor() -> Problem {
    Problem::field(
        Kind::Invalid,
        "after",
        "after is no cursor of this list; start without it, and follow the Link header.",
    )
}

/// Cuts the items behind the page off: one more than `limit` was read, to know whether another page follows.
#[must_use]
pub fn cut<T>(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let length = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > length;
    items.truncate(length);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}

/// The same page of something else.
#[must_use]
pub fn map<T, U>(page: Page<T>, view: impl Fn(T) -> U) -> Page<U> {
    Page {
        items: page.items.into_iter().map(view).collect(),
        next: page.next,
    }
}

/// The same query with another cursor, as the `Link` header says it. Cursors are base64url, slugs or ids, so
/// they need no escaping.
#[must_use]
pub fn next_link(path: &str, query: &str, cursor: &str) -> String {
    let mut kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("after="))
        .collect();
    let cursor = format!("after={cursor}");
    kept.push(&cursor);
    format!("<{path}?{}>; rel=\"next\"", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filter() {
        assert_eq!(
            next_link("/p", "q=a%20b&after=old&limit=2", "new"),
            "</p?q=a%20b&limit=2&after=new>; rel=\"next\""
        );
        assert_eq!(next_link("/p", "", "c"), "</p?after=c>; rel=\"next\"");
    }
}
