//! The application: routes, their description, and what is around each request.

use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header,
    middleware::from_fn,
    web,
};
use utoipa::OpenApi as _;
use utoipa_actix_web::{AppExt as _, scope};
use utoipa_swagger_ui::SwaggerUi;

use crate::{fallback, observe, openapi, routes, state::AppState};

/// Builds the application of one worker thread.
pub fn app(
    state: web::Data<AppState>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + 'static>,
        Error = Error,
        InitError = (),
    >,
> {
    let (app, mut document) = App::new()
        .into_utoipa_app()
        .openapi(openapi::Head::openapi())
        .configure(routes::service)
        .service(scope::scope("/api/v1").configure(routes::api))
        .split_for_parts();
    openapi::complete(&mut document);
    let known = web::Data::new(openapi::Routes::of(&document));
    app.app_data(state)
        .app_data(known)
        .service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", document))
        .route("/docs", web::get().to(docs))
        .default_service(web::to(fallback::fallback))
        .wrap(from_fn(observe::observe))
}

/// The page stands in a folder of its own.
async fn docs() -> actix_web::HttpResponse {
    actix_web::HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, "/docs/"))
        .finish()
}
