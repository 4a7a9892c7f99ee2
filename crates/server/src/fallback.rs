//! What no route takes: 405 when the address takes other methods, else 404.

use actix_web::{HttpRequest, web};

use crate::{
    openapi::Routes,
    problem::{Kind, Problem},
};

/// The answer of last resort.
pub async fn fallback(
    req: HttpRequest,
    routes: web::Data<Routes>,
) -> Result<actix_web::HttpResponse, Problem> {
    match routes.allowed(req.path()) {
        Some(methods) => {
            let detail = format!("{} takes {methods}.", req.path());
            Err(Problem::with(Kind::MethodNotAllowed, detail).allow(methods))
        }
        None => Err(Problem::new(Kind::NoSuchRoute)),
    }
}
