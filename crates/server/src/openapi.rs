//! The OpenAPI document: generated from the handlers that are registered, with what is common to all added
//! here.
//!
//! Invariant: a route that is served is in the document, for both come from the same call; a route that is in
//! the document is served, for the fallback answers 405 and not 404 on its path.

mod refusals;

use actix_web::http::Method;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::problem::{ItemError, Kind, ProblemBody};

/// The head of the document; paths and schemas come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tenantry",
        description = "A laboratory's work: patients, orders, specimens, results, reports. Which laboratory is decided by \
                       the token alone. Refusals are RFC 9457 problem details; their types are listed at /problems.",
    ),
    components(schemas(ProblemBody, ItemError, lab::imports::Fields)),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "log-in", description = "Getting a token"),
        (name = "laboratory", description = "A laboratory's own work; the token names the laboratory"),
        (name = "operators", description = "The platform's own staff: laboratories and operations on them"),
        (name = "service", description = "Health, figures and descriptions of the service itself"),
    )
)]
pub struct Head;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .build(),
        );
        components.add_security_scheme("bearer", scheme);
    }
}

/// The methods and patterns of the document, for the fallback.
#[derive(Debug, Clone, Default)]
pub struct Routes(Vec<(Vec<String>, Vec<Method>)>);

impl Routes {
    /// Reads them from the document.
    #[must_use]
    pub fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let mut routes = Vec::new();
        for (path, item) in &document.paths.paths {
            let methods = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            let taken = methods
                .into_iter()
                .filter(|(_, op)| op.is_some())
                .map(|(method, _)| method)
                .collect();
            routes.push((path.split('/').map(str::to_owned).collect(), taken));
        }
        Self(routes)
    }

    /// The pattern that `path` has, as `/api/v1/patients/{id}`.
    #[must_use]
    pub fn pattern(&self, path: &str) -> Option<String> {
        self.fitting(path).next().map(|(pattern, _)| pattern.join("/"))
    }

    fn fitting<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a (Vec<String>, Vec<Method>)> {
        let fits = move |pattern: &[String]| {
            let mut parts = path.split('/');
            let all = pattern.iter().all(|want| {
                parts.next().is_some_and(|part| {
                    if want.starts_with('{') {
                        !part.is_empty()
                    } else {
                        want == part
                    }
                })
            });
            all && parts.next().is_none()
        };
        self.0.iter().filter(move |(pattern, _)| fits(pattern))
    }

    /// The methods that `path` takes, as the Allow header lists them; `None` when no route has the path.
    #[must_use]
    pub fn allowed(&self, path: &str) -> Option<String> {
        // Whatever takes GET takes HEAD (see `observe`), and the document need not say it of each route.
        let head = |method: &Method| (*method == Method::GET).then_some("HEAD");
        // Of `/tenants/adopt` and `/tenants/{id}` the first is meant: where a word stands, it is no id.
        let parameters = |pattern: &[String]| pattern.iter().filter(|part| part.starts_with('{')).count();
        let fewest = self.fitting(path).map(|(pattern, _)| parameters(pattern)).min()?;
        let methods: Vec<&str> = self
            .fitting(path)
            .filter(|(pattern, _)| parameters(pattern) == fewest)
            .flat_map(|(_, methods)| methods)
            .flat_map(|method| [Some(method.as_str()), head(method)])
            .flatten()
            .collect();
        (!methods.is_empty()).then(|| methods.join(", "))
    }
}

/// Adds what is true of every route: a name, and its refusals.
pub fn complete(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations: [(&str, &mut Option<Operation>); 5] = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(operation_id(method, path));
            refusals::add(method, path, operation);
        }
    }
    let list: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| {
            format!(
                "- `{}` ({}): {}",
                kind.code(),
                kind.status().as_u16(),
                kind.title()
            )
        })
        .collect();
    let description = document.info.description.get_or_insert_default();
    description.push_str("\n\nProblem types:\n\n");
    description.push_str(&list.join("\n"));
}

/// Unique because method and path are: `GET /api/v1/orders/{id}/report` is `get_orders_id_report`. The
/// handlers' own names are not.
fn operation_id(method: &str, path: &str) -> String {
    let short = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = short
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_named_by_its_method_and_path() {
        assert_eq!(
            operation_id("get", "/api/v1/orders/{id}/report"),
            "get_orders_id_report"
        );
        assert_eq!(operation_id("get", "/livez"), "get_livez");
    }

    #[test]
    fn a_known_path_lists_its_methods() {
        let get = |path: &str| (path.split('/').map(str::to_owned).collect(), vec![Method::GET]);
        let routes = Routes(vec![
            get("/a"),
            get("/a/{id}"),
            (vec![String::new(), "a".into()], vec![Method::POST]),
            (
                vec![String::new(), "a".into(), "adopt".into()],
                vec![Method::POST],
            ),
        ]);
        assert_eq!(routes.allowed("/a").as_deref(), Some("GET, HEAD, POST"));
        assert_eq!(routes.allowed("/a/7").as_deref(), Some("GET, HEAD"));
        assert_eq!(routes.allowed("/a/adopt").as_deref(), Some("POST"));
        assert_eq!(routes.allowed("/a/"), None);
        assert_eq!(routes.allowed("/b"), None);
        assert_eq!(routes.pattern("/a/7").as_deref(), Some("/a/{id}"));
        assert_eq!((routes.pattern("/a/7/8"), routes.pattern("/")), (None, None));
    }
}
