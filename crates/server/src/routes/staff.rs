//! The people who work in the laboratory.

use actix_web::{HttpRequest, HttpResponse, get, patch, post, put, web};
use lab::{
    Action, Page, PageRequest,
    staff::{self, NewStaff, Staff, StaffPatch},
};
use model::{Email, Role, StaffId};
use registry::AdminPatch;
use secrecy::ExposeSecret;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    admins,
    answer::{self, Created},
    extract::{Body, IdempotencyKey, IfMatch, Params, PathId, Tenant},
    input::{self, Password},
    problem::Answer,
    state::AppState,
};

/// Which page to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    limit: Option<u32>,
}

/// A person to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewStaffBody {
    /// Log-in name.
    #[schema(value_type = String, example = "tina@acme-lab.example")]
    email: Email,
    display_name: String,
    /// One of receptionist, technician, supervisor, lab_admin.
    #[schema(value_type = String)]
    role: Role,
    /// At least 12 characters.
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// A change to a person; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaffPatchBody {
    #[serde(default, deserialize_with = "input::present")]
    display_name: Option<String>,
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "input::present")]
    email: Option<Email>,
    /// Ends the person's tokens at once; the next one is for the new role.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "input::present")]
    role: Option<Role>,
    /// Closes or opens the account, at once.
    #[serde(default, deserialize_with = "input::present")]
    active: Option<bool>,
}

/// A person's new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordBody {
    /// At least 12 characters.
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// Everybody, those added last first.
#[utoipa::path(tag = "laboratory", params(ListQuery), responses((status = 200, body = Page<Staff>)))]
#[get("/staff")]
pub(crate) async fn list(req: HttpRequest, tenant: Tenant, query: Params<ListQuery>) -> Answer<HttpResponse> {
    let page = PageRequest {
        limit: query.0.limit,
        after: query.0.after,
    };
    let found = tenant
        .read(Action::StaffRead, async |txn, _| staff::list(txn, &page).await)
        .await?;
    Ok(answer::page(&req, &found))
}

/// Adds a person.
#[utoipa::path(tag = "laboratory", request_body = NewStaffBody, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Staff, headers(("Location" = String), ("ETag" = String)))))]
#[post("/staff")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    body: Body<NewStaffBody>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    tenant.allow(Action::StaffChange)?;
    let NewStaffBody {
        email,
        display_name,
        role,
        password,
    } = body.value;
    let hash = input::hashed(&state.passwords, &password).await?;
    // The key is tied to what was sent without the password: its bare digest must not lie in the database.
    let sent = format!("{email}\n{display_name}\n{role}");
    let new = NewStaff {
        email,
        display_name,
        role,
    };
    let work = tenant.create(
        Action::StaffChange,
        &key,
        "POST staff",
        sent.as_bytes(),
        async |txn, actor| {
            let person = staff::create(txn, actor, &new, Some(hash.expose_secret())).await?;
            Ok(Created::of(
                format!("/api/v1/staff/{}", person.id),
                Some(person.version),
                &person,
            ))
        },
    );
    work.await
}

/// One person.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Staff, headers(("ETag" = String)))))]
#[get("/staff/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<StaffId>) -> Answer<HttpResponse> {
    let person = tenant
        .read(Action::StaffRead, async |txn, _| staff::get(txn, id.0).await)
        .await?;
    Ok(answer::ok_tagged(person.version, &person))
}

/// Changes a person. Nobody is ever removed: signatures name them.
#[utoipa::path(tag = "laboratory", request_body = StaffPatchBody,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Staff, headers(("ETag" = String)))))]
#[patch("/staff/{id}")]
pub(crate) async fn change(
    tenant: Tenant,
    id: PathId<StaffId>,
    version: IfMatch,
    body: Body<StaffPatchBody>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    let StaffPatchBody {
        display_name,
        email,
        role,
        active,
    } = body.value;
    let patch = StaffPatch {
        display_name,
        email,
        role,
        active,
    };
    let copy = AdminPatch {
        email: patch.email.clone(),
        display_name: patch.display_name.clone(),
        active: patch.active,
    };
    let person = tenant
        .write_with(
            Action::StaffChange,
            async |txn, actor| staff::update(txn, actor, id.0, version.0, &patch).await,
            async || admins::change(&state, tenant.id(), tenant.actor(), id.0, &copy).await,
        )
        .await?;
    Ok(answer::ok_tagged(person.version, &person))
}

/// Sets a person's password in this laboratory.
#[utoipa::path(tag = "laboratory", request_body = PasswordBody, params(("id" = Uuid, Path)),
    responses((status = 204)))]
#[put("/staff/{id}/password")]
pub(crate) async fn set_password(
    tenant: Tenant,
    id: PathId<StaffId>,
    body: Body<PasswordBody>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    tenant.allow(Action::StaffChange)?;
    let hash = input::hashed(&state.passwords, &body.value.password).await?;
    tenant
        .write_with(
            Action::StaffChange,
            async |txn, actor| staff::password_set(txn, actor, id.0, hash.expose_secret()).await,
            async || admins::set_password(&state, tenant.id(), tenant.actor(), id.0, &hash).await,
        )
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
