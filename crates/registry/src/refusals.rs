//! Refused log-ins, counted by the hour, and from where somebody has logged in before.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{ClientNetwork, Email, Slug, TenantId};
use tokio_postgres::{Row, types::ToSql};

use crate::{RegistryError, paging::page_limit, row::Reader, sql};

/// The most rows of one hour. What is beyond is counted without its place, account and client.
const ROWS_PER_HOUR_MAX: i64 = 200;
/// How long the counts are kept.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// How long a client is known after a log-in.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);

/// A log-in that was refused.
#[derive(Debug, Clone)]
pub struct NewRefusal<'a> {
    /// To what: `lab`, `operator` or `invitation`.
    pub audience: &'a str,
    /// The code of the problem that was answered.
    pub reason: &'a str,
    /// The laboratory, where one was meant.
    pub tenant: Option<TenantId>,
    /// The account's address.
    pub email: Option<&'a Email>,
    /// From where.
    pub client: Option<ClientNetwork>,
    /// The request.
    pub request_id: Option<&'a str>,
}

/// Counts a refusal: one row for each account, client and hour, up to a bound on the rows of an hour.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn refusal_count(
    client: &impl GenericClient,
    refusal: &NewRefusal<'_>,
) -> Result<(), RegistryError> {
    let counted = sql::row_one(
        client,
        "counting a refused log-in",
        "WITH present AS (SELECT date_trunc('hour', clock_timestamp()) AS hour),
         named AS (
             SELECT (SELECT count(*) FROM login_refusals WHERE since = hour) < $7
                 OR EXISTS (SELECT FROM login_refusals
                     WHERE since = hour AND audience = $1 AND reason = $2 AND tenant_id IS NOT DISTINCT FROM $3::uuid
                       AND email IS NOT DISTINCT FROM lower($4::text)
                       AND client IS NOT DISTINCT FROM $5::text::inet) AS fits
             FROM present)
         INSERT INTO login_refusals AS mine (since, audience, reason, tenant_id, email, client, last_request_id)
         SELECT hour, $1, $2, CASE WHEN fits THEN $3::uuid END, CASE WHEN fits THEN lower($4::text) END,
                CASE WHEN fits THEN $5::text::inet END, $6::text
         FROM present, named
         ON CONFLICT (since, audience, reason, coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'),
                      coalesce(email, ''), coalesce(client, '::/0'))
         DO UPDATE SET refusals = mine.refusals + 1, last_at = clock_timestamp(),
                       last_request_id = excluded.last_request_id
         RETURNING refusals = 1 AS new",
        &[
            &refusal.audience,
            &refusal.reason,
            &refusal.tenant.map(TenantId::as_uuid),
            &refusal.email.map(Email::as_str),
            &refusal.client.map(|client| client.to_string()),
            &refusal.request_id,
            &ROWS_PER_HOUR_MAX,
        ],
    )
    .await?;
    // What adds a row also removes those whose time is over.
    if counted.get("new") {
        let statement =
            "DELETE FROM login_refusals WHERE since < clock_timestamp() - $1::float8 * interval '1 second'";
        sql::touched(client, "removing old counts", statement, &[&KEPT.as_secs_f64()]).await?;
    }
    Ok(())
}

/// Refused log-ins of one hour that have everything but their moment in common.
#[derive(Debug, Clone)]
pub struct Refusals {
    /// The beginning of the hour.
    pub since: Timestamp,
    /// The last of them.
    pub last_at: Timestamp,
    /// How many.
    pub refusals: i64,
    /// To what: `lab`, `operator` or `invitation`.
    pub audience: String,
    /// The code of the problem that was answered.
    pub reason: String,
    /// The laboratory, where one was meant.
    pub tenant: Option<TenantId>,
    /// Its slug, while it is there.
    pub tenant_slug: Option<Slug>,
    /// The account's address.
    pub email: Option<String>,
    /// From where: an address or a network.
    pub client: Option<String>,
    /// The last request.
    pub last_request_id: Option<String>,
}

impl Refusals {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "login_refusals", "since_text");
        Ok(Self {
            since: r.get("since")?,
            last_at: r.get("last_at")?,
            refusals: r.get("refusals")?,
            audience: r.get("audience")?,
            reason: r.get("reason")?,
            tenant: r.id_opt("tenant_id")?,
            tenant_slug: r.parse_opt("tenant_slug")?,
            email: r.get("email")?,
            client: r.get("client")?,
            last_request_id: r.get("last_request_id")?,
        })
    }
}

/// The refused log-ins, the newest hours first and in one hour the most frequent; of one laboratory, or of
/// all and of operators. They hold addresses of people.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn refusals_list(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    limit: u32,
) -> Result<Vec<Refusals>, RegistryError> {
    let statement = "SELECT r.since, r.since::text AS since_text, r.last_at, r.refusals, r.audience, r.reason, r.tenant_id,
                t.slug::text AS tenant_slug, r.email, CASE WHEN masklen(r.client) IN (32, 128) THEN host(r.client) ELSE text(r.client) END
                    AS client, r.last_request_id
           FROM login_refusals r LEFT JOIN tenants t ON t.id = r.tenant_id
          WHERE $1::uuid IS NULL OR r.tenant_id = $1
          ORDER BY r.since DESC, r.refusals DESC, r.last_at DESC LIMIT $2";
    let params: [&(dyn ToSql + Sync); 2] = [&tenant.map(TenantId::as_uuid), &page_limit(limit)];
    let rows = sql::rows(client, "listing refused log-ins", statement, &params).await?;
    rows.iter().map(Refusals::from_row).collect()
}

/// Whether somebody has logged in to this account from this client lately.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn client_has_logged_in(
    client: &impl GenericClient,
    audience: &str,
    tenant: Option<TenantId>,
    email: &Email,
    from: ClientNetwork,
) -> Result<bool, RegistryError> {
    let row = sql::row_one(
        client,
        "looking for a log-in",
        "SELECT EXISTS (SELECT FROM audit_log
             WHERE action = 'login.succeeded' AND lower(detail ->> 'email') = lower($1::text)
               AND client_ip BETWEEN $2 AND $3 AND at > clock_timestamp() - $4::float8 * interval '1 second'
               AND detail ->> 'audience' = $5 AND tenant_id IS NOT DISTINCT FROM $6::uuid) AS known",
        &[
            &email.as_str(),
            &from.first(),
            &from.last(),
            &KNOWN_FOR.as_secs_f64(),
            &audience,
            &tenant.map(TenantId::as_uuid),
        ],
    )
    .await?;
    Ok(row.get("known"))
}
