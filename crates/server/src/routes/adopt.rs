//! A database that exists becomes a laboratory.

use actix_web::{HttpResponse, post, web};
use identity::PasswordContext;
use model::{
    DbName, Email, SchemaVersion, ServerName, Slug,
    openapi::{Line, TIME_ZONE_CHARS_MAX, TimeZone},
    text::LINE_CHARS_MAX,
};
use provisioner::{AdminEntry, Adoption};
use serde::Deserialize;
use utoipa::ToSchema;

use super::operations::Accepted;
use crate::{
    extract::{Body, IdempotencyKey, OperatorCaller},
    input::{self, NewPassword, Password},
    invitations,
    problem::{ApiResult, Kind, Problem},
    state::AppState,
};

/// A database that is to become a laboratory as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptBody {
    /// The database; it keeps its name.
    #[schema(value_type = DbName)]
    database: String,
    #[schema(value_type = Slug)]
    slug: String,
    /// The server that has it, by its name in the registry; may be left out while there is only one.
    #[schema(value_type = Option<ServerName>)]
    server: Option<String>,
    /// The schema version that it is at, where that cannot be told by what is there. It is checked.
    #[schema(maximum = 4_294_967_295_i64)]
    baseline: Option<u32>,
    /// The laboratory's name, where its database does not say.
    #[schema(value_type = Option<Line>)]
    name: Option<String>,
    /// Where its database does not say.
    #[schema(value_type = Option<TimeZone>)]
    time_zone: Option<String>,
    /// Its administrator; the longest serving lab_admin of its database unless given.
    admin: Option<AdoptAdminBody>,
    /// An administrator whom its database does not know, or who has no password there, is invited to set one:
    /// the answer has the link, once. Without this and without a password such a database is refused, so that
    /// a mistyped address lets no stranger in.
    #[serde(default)]
    invite: bool,
}

/// The administrator of a laboratory that is adopted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptAdminBody {
    /// Log-in name.
    email: Email,
    /// For a person whom its database does not know; the address unless given.
    #[schema(value_type = Option<Line>)]
    display_name: Option<String>,
    /// For a person who has no password in its database; an existing password is kept.
    #[schema(value_type = Option<NewPassword>)]
    password: Option<Password>,
}

fn invalid(field: &str, error: &impl std::fmt::Display) -> Problem {
    Problem::field(Kind::Invalid, field, error.to_string())
}

/// What can be the name of a time zone. Whether there is one of this name is looked up with the database.
fn zone(text: String) -> ApiResult<String> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
    if (1..=TIME_ZONE_CHARS_MAX).contains(&text.len()) && text.bytes().all(letters) {
        return Ok(text);
    }
    let why = "it must be an IANA name such as Europe/Berlin or UTC";
    Err(invalid("timeZone", &why))
}

/// A name in its normal form.
fn line(field: &str, text: Option<String>) -> ApiResult<Option<String>> {
    text.map(|text| model::text::line(&text, LINE_CHARS_MAX))
        .transpose()
        .map_err(|error| invalid(field, &format!("it {error}")))
}

/// Makes a laboratory of a database that exists: its tables, rows and people stay, missing migrations are
/// run, and only its own role and those who work in it can connect. It keeps the id, name and time zone of
/// its own profile.
#[utoipa::path(tag = "operators", request_body = AdoptBody, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/tenants/adopt")]
pub(crate) async fn adopt(
    operator: OperatorCaller,
    key: IdempotencyKey,
    body: Body<AdoptBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let AdoptBody {
        database,
        slug,
        server,
        baseline,
        name,
        time_zone,
        admin,
        invite,
    } = body.value;
    let server = server.as_deref().map(ServerName::parse).transpose();
    let mut adoption = Adoption {
        database: DbName::from_catalog(database).map_err(|error| invalid("database", &error))?,
        slug: Slug::parse(&slug)?,
        server: server.map_err(|error| invalid("server", &error))?,
        baseline: baseline.map(SchemaVersion::new),
        name: line("name", name)?,
        time_zone: time_zone.map(zone).transpose()?,
        admin_email: None,
        admin_name: None,
        admin_entry: if invite {
            AdminEntry::Invited
        } else {
            AdminEntry::Refused
        },
    };
    if let Some(admin) = admin {
        if let Some(password) = &admin.password {
            if invite {
                return Err(invalid(
                    "invite",
                    &"`invite` cannot be combined with `admin.password`: a person with a password needs no link",
                ));
            }
            let name = adoption.name.as_deref().unwrap_or_default();
            let context = PasswordContext::of(&admin.email).and_laboratory(name, adoption.slug.as_str());
            let hash = input::hashed(&state.passwords, "admin.password", password, &context).await?;
            adoption.admin_entry = AdminEntry::Password(hash);
        }
        let display_name = line("admin.displayName", admin.display_name)?;
        let display_name = display_name.unwrap_or_else(|| admin.email.to_string());
        adoption.admin_name = Some(display_name);
        adoption.admin_email = Some(admin.email);
    }
    let by = operator.requested_by(key);
    let (tenant, operation) = state.provisioner.request_adopt(adoption, by.clone()).await?;
    let invitation = match invite {
        true => invitations::first(&state, tenant.id, &by).await?,
        false => None,
    };
    Ok(Accepted::inviting(tenant.id, operation, invitation, &[]))
}
