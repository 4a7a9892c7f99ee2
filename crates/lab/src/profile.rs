//! The laboratory itself: its settings, and the first rows of a new database.

use model::{Email, StaffId, TenantId};

use tokio_postgres::{error::SqlState, types::Type};

use crate::{
    Actor, LabError, Txn, audit,
    error::same_version,
    evaluation::{self, Affected},
    limits::ACCESSION_PREFIX_MAX,
    patch,
    rows::Reader,
    schema,
    text::Problems,
};

/// What a new laboratory begins with.
#[derive(Debug, Clone)]
pub struct LabSeed {
    /// Whose database this is, for good.
    pub tenant: TenantId,
    /// The laboratory's name.
    pub name: String,
    /// Its time zone, an IANA name.
    pub time_zone: String,
    /// The first lab admin; the same id as in the registry.
    pub admin_id: StaffId,
    /// Their e-mail.
    pub admin_email: Email,
    /// Their name.
    pub admin_name: String,
}

/// Writes the profile and the first staff member (a lab admin without a password here: they log in through
/// the registry). Safe to run again with the same seed: what is there stays as it is.
///
/// # Errors
/// [`LabError::Conflict`] when the database belongs to another laboratory already; [`LabError::Invalid`] when
/// PostgreSQL does not know the time zone.
pub async fn seed(txn: &tokio_postgres::Transaction<'_>, seed: &LabSeed) -> Result<(), LabError> {
    let mut problems = Problems::default();
    let name = problems.line("name", &seed.name, crate::text::LINE_MAX);
    let admin_name = problems.line("adminName", &seed.admin_name, crate::text::LINE_MAX);
    problems.done()?;
    time_zone_check(txn, &seed.time_zone).await?;
    // Each runs once on its connection: preparing it first would cost as much again.
    txn.execute_typed(
        "INSERT INTO lab_profile (tenant_id, name, tz) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[
            (&seed.tenant.as_uuid(), Type::UUID),
            (&name, Type::TEXT),
            (&seed.time_zone, Type::TEXT),
        ],
    )
    .await?;
    let owner: uuid::Uuid = txn
        .query_typed_one("SELECT tenant_id FROM lab_profile", &[])
        .await?
        .get(0);
    if owner != seed.tenant.as_uuid() {
        return Err(LabError::conflict(
            "other_laboratory",
            format!(
                "this database belongs to laboratory {owner} and not to {}",
                seed.tenant
            ),
        ));
    }
    txn.execute_typed(
        "INSERT INTO staff (id, display_name, email, role) VALUES ($1, $2, $3, 'lab_admin') ON CONFLICT (id) DO NOTHING",
        &[
            (&seed.admin_id.as_uuid(), Type::UUID),
            (&admin_name, Type::TEXT),
            (&seed.admin_email.as_str(), Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

/// The view of all names reads a file for each of them, which takes longer than all the rest of making a
/// laboratory. A name that cannot be one of the POSIX rules that the server also takes for a zone
/// (`Europe/Berlin3` is three hours west of Greenwich) is tried instead.
async fn time_zone_check(txn: &tokio_postgres::Transaction<'_>, zone: &str) -> Result<(), LabError> {
    // PostgreSQL takes an abbreviation before a name: CET would be an hour east of Greenwich in summer, too.
    let sql = "SELECT EXISTS (SELECT FROM pg_timezone_abbrevs WHERE abbrev = upper($1) AND abbrev NOT IN ('UTC', 'GMT', 'UCT', 'Z', 'ZULU'))";
    if !is_plain_name(zone) && txn.query_one(sql, &[&zone]).await?.get(0) {
        let shown: String = zone.chars().take(64).collect();
        let message = format!(
            "{shown:?} is an abbreviation, without daylight saving time; write the place, as Europe/Berlin"
        );
        return Err(LabError::invalid("timeZone", message));
    }
    let known = if is_plain_name(zone) {
        let sql = "SELECT now() AT TIME ZONE $1";
        match txn.query_typed_one(sql, &[(&zone, Type::TEXT)]).await {
            Ok(_) => true,
            Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => false,
            Err(error) => return Err(error.into()),
        }
    } else {
        let sql = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)";
        txn.query_one(sql, &[&zone]).await?.get(0)
    };
    if known {
        Ok(())
    } else {
        let shown: String = zone.chars().take(64).collect();
        Err(LabError::invalid(
            "timeZone",
            format!("PostgreSQL knows no time zone {shown:?}; write it as Europe/Berlin or UTC"),
        ))
    }
}

/// Whether it is written as most zones are: words that begin with a capital, without digits.
fn is_plain_name(zone: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_alphabetic() || c == '_' || c == '-')
    };
    zone == "UTC" || (zone.contains('/') && zone.split('/').all(is_word))
}

/// The laboratory's settings.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The tenant.
    #[schema(value_type = uuid::Uuid)]
    pub tenant_id: TenantId,
    /// Its name.
    pub name: String,
    /// Its time zone, an IANA name.
    pub time_zone: String,
    /// What every accession number begins with.
    pub accession_prefix: String,
    /// Whether one person may both enter and verify a value; such results are marked.
    pub allow_self_verify: bool,
    /// Whether a notice of a critical value counts although it was not read back.
    pub accept_notice_without_read_back: bool,
    /// Raised by every change.
    pub version: i32,
}

/// A change to the settings; what is absent stays.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfilePatch {
    /// New name.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Line, required = false)]
    pub name: Option<String>,
    /// New time zone, for accession numbers and ages from now on; open results are evaluated again, and
    /// released ones that would be evaluated otherwise are marked. A place such as Europe/Berlin, or UTC.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::TimeZone, required = false)]
    pub time_zone: Option<String>,
    /// New prefix of accession numbers: up to six capital letters and digits.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::AccessionPrefix, required = false)]
    pub accession_prefix: Option<String>,
    /// Allow or forbid one person to enter and verify.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = bool, required = false)]
    pub allow_self_verify: Option<bool>,
    /// Accept notices of critical values that were not read back, or no longer. It holds for what is not
    /// released yet.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = bool, required = false)]
    pub accept_notice_without_read_back: Option<bool>,
}

/// The laboratory's settings.
///
/// # Errors
/// [`LabError::NotFound`] when the database was never seeded.
pub async fn get(txn: &Txn<'_>) -> Result<Profile, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT tenant_id, name, tz, acc_prefix, allow_self_verify, accept_notice_without_read_back, version FROM lab_profile",
        )
        .await?;
    let row = txn.query_opt(&statement, &[]).await?;
    let row = row.ok_or_else(|| LabError::not_found("profile", "of its own"))?;
    let row = Reader::new("lab_profile", &row);
    Ok(Profile {
        tenant_id: row.get::<uuid::Uuid>("tenant_id")?.into(),
        name: row.get("name")?,
        time_zone: row.get("tz")?,
        accession_prefix: row.get("acc_prefix")?,
        allow_self_verify: row.get("allow_self_verify")?,
        accept_notice_without_read_back: row.get("accept_notice_without_read_back")?,
        version: row.get("version")?,
    })
}

/// Changes the settings. A change that changes nothing writes nothing.
///
/// # Errors
/// [`LabError::Version`] when the row has changed since it was read, [`LabError::Invalid`] for a bad field.
pub async fn update(
    txn: &Txn<'_>,
    actor: &Actor,
    version: i32,
    patch: &ProfilePatch,
) -> Result<Profile, LabError> {
    let mut problems = Problems::default();
    let name = problems.optional_line("name", patch.name.as_deref(), crate::text::LINE_MAX);
    if let Some(prefix) = &patch.accession_prefix
        && (prefix.len() > ACCESSION_PREFIX_MAX
            || !prefix
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
    {
        problems.add(
            "accessionPrefix",
            "it must have at most six capital letters and digits",
        );
    }
    problems.done()?;
    if let Some(zone) = &patch.time_zone {
        time_zone_check(txn, zone).await?;
    }
    txn.query_opt("SELECT 1 FROM lab_profile FOR NO KEY UPDATE", &[])
        .await?;
    let before = get(txn).await?;
    same_version("the laboratory's profile", before.version, version)?;
    let stays = name.as_deref().is_none_or(|name| name == before.name)
        && patch
            .time_zone
            .as_ref()
            .is_none_or(|zone| *zone == before.time_zone)
        && patch
            .accession_prefix
            .as_ref()
            .is_none_or(|prefix| *prefix == before.accession_prefix)
        && patch
            .allow_self_verify
            .is_none_or(|allow| allow == before.allow_self_verify)
        && patch
            .accept_notice_without_read_back
            .is_none_or(|accept| accept == before.accept_notice_without_read_back);
    if stays {
        return Ok(before);
    }
    txn.execute(
        "UPDATE lab_profile SET name = coalesce($1, name), tz = coalesce($2, tz), acc_prefix = coalesce($3, acc_prefix),
           allow_self_verify = coalesce($4, allow_self_verify),
           accept_notice_without_read_back = coalesce($5, accept_notice_without_read_back)",
        &[
            &name,
            &patch.time_zone,
            &patch.accession_prefix,
            &patch.allow_self_verify,
            &patch.accept_notice_without_read_back,
        ],
    )
    .await?;
    let profile = get(txn).await?;
    let detail = serde_json::json!({
        "allowSelfVerify": profile.allow_self_verify,
        "acceptNoticeWithoutReadBack": profile.accept_notice_without_read_back,
        "timeZone": profile.time_zone,
    });
    audit::write(
        txn,
        actor,
        "profile.changed",
        "profile",
        profile.tenant_id,
        Some(detail),
    )
    .await?;
    if profile.time_zone != before.time_zone {
        evaluation::again(
            txn,
            actor,
            Affected::TimeZone(&before.time_zone),
            "the laboratory's time zone changed",
        )
        .await?;
    }
    Ok(profile)
}
