//! The people who work in the laboratory.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, patch, post, web};
use lab::{
    Action, Page, PageRequest,
    staff::{self, NewStaff, Staff, StaffPatch},
};
use model::{Email, Role, StaffId, openapi::Line};
use registry::AdminPatch;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    admins,
    extract::{Body, IdempotencyKey, IfMatch, Params, PathId, Tenant},
    input::{self, NoPassword},
    problem::{ApiResult, Problem},
    response::{self, Created},
    staff_invitations::{self, StaffInvitationView},
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
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// A person to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewStaffBody {
    /// Log-in name.
    email: Email,
    #[schema(value_type = Line)]
    display_name: String,
    /// One of receptionist, technician, supervisor, lab_admin.
    role: Role,
    /// One person cannot set another's password.
    #[schema(ignore)]
    #[serde(default, rename = "password")]
    _password: NoPassword,
}

/// A person who was added, with the link by which they set their password.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddedStaff {
    #[serde(flatten)]
    person: Staff,
    /// Shown only now. Absent for a request that was sent again after the person has set a password.
    invitation: Option<StaffInvitationView>,
}

/// A change to a person; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaffPatchBody {
    #[serde(default, deserialize_with = "input::present")]
    #[schema(value_type = Line, required = false)]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "input::present")]
    #[schema(value_type = Email, required = false)]
    email: Option<Email>,
    /// Ends the person's tokens at once; the next one is for the new role.
    #[serde(default, deserialize_with = "input::present")]
    #[schema(value_type = Role, required = false)]
    role: Option<Role>,
    /// Closes or opens the account, at once.
    #[serde(default, deserialize_with = "input::present")]
    #[schema(value_type = bool, required = false)]
    active: Option<bool>,
    /// One person cannot set another's password.
    #[schema(ignore)]
    #[serde(default, rename = "password")]
    _password: NoPassword,
}

/// The staff, those added last first.
#[utoipa::path(tag = "laboratory", params(ListQuery), responses((status = 200, body = Page<Staff>)))]
#[get("/staff")]
pub(crate) async fn list(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<ListQuery>,
) -> ApiResult<HttpResponse> {
    let page = PageRequest {
        limit: query.0.limit,
        after: query.0.after,
    };
    let found = tenant
        .read(Action::StaffRead, async |txn, _| staff::list(txn, &page).await)
        .await?;
    Ok(response::page(&req, &found))
}

/// Adds a person, who sets the password by a link: the answer has it, once.
///
/// The same request again under the same `Idempotency-Key` adds no second person; as long as the person has
/// set no password there is a new link in place of the first, and none from then on.
#[utoipa::path(tag = "laboratory", request_body = NewStaffBody, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = AddedStaff, headers(("Location" = String), ("ETag" = String)))))]
#[post("/staff")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    body: Body<NewStaffBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let NewStaffBody {
        email,
        display_name,
        role,
        ..
    } = body.value;
    let new = NewStaff {
        email,
        display_name,
        role,
    };
    let made = tenant
        .create_stored(
            Action::StaffChange,
            &key,
            "POST staff",
            &body.bytes,
            async |txn, actor| {
                let person = staff::create(txn, actor, &new).await?;
                Ok(Created::of(
                    format!("/api/v1/staff/{}", person.id),
                    Some(person.version),
                    &person,
                ))
            },
        )
        .await?;
    let id = made
        .headers
        .get("location")
        .and_then(|at| at.rsplit('/').next()?.parse().ok());
    let id: StaffId = id.ok_or_else(|| Problem::internal("an added person has no address"))?;
    // The token is kept nowhere, so it is no part of the answer that is kept.
    let person = tenant
        .read(Action::StaffRead, async |txn, _| staff::get(txn, id).await)
        .await?;
    let invitation = if person.has_password || !person.active {
        None
    } else {
        Some(staff_invitations::invite(&state, &tenant, id).await?)
    };
    let mut response = HttpResponse::Created();
    for (name, value) in made.headers {
        response.insert_header((name, value));
    }
    Ok(response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(AddedStaff { person, invitation }))
}

/// One person.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Staff, headers(("ETag" = String)))))]
#[get("/staff/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<StaffId>) -> ApiResult<HttpResponse> {
    let person = tenant
        .read(Action::StaffRead, async |txn, _| staff::get(txn, id.0).await)
        .await?;
    Ok(response::ok_tagged(person.version, &person))
}

/// Changes a person. Persons are never removed: signatures name them.
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
) -> ApiResult<HttpResponse> {
    let StaffPatchBody {
        display_name,
        email,
        role,
        active,
        ..
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
    Ok(response::ok_tagged(person.version, &person))
}

/// Invites a person to set a password: one who has none yet, or has lost it, and keeps the old one until
/// then. An invitation that they had before is no longer valid. The token is shown only now.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 201, body = StaffInvitationView)))]
#[post("/staff/{id}/invitation")]
pub(crate) async fn invite(
    tenant: Tenant,
    id: PathId<StaffId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let made = staff_invitations::invite(&state, &tenant, id.0).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(made))
}

/// Takes a person's invitation back: its link is good for nothing from now on. Also 204 when there is none. A
/// password that they have stays.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 204)))]
#[delete("/staff/{id}/invitation")]
pub(crate) async fn revoke_invitation(
    tenant: Tenant,
    id: PathId<StaffId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    staff_invitations::revoke(&state, &tenant, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
