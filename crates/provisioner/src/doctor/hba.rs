//! What the server's `pg_hba.conf` says of laboratories' roles: the first line that fits a log-in decides, so
//! a `trust` above the others lets anybody in as any laboratory, and a `reject` keeps a laboratory out.
//!
//! Read from the file as it is now, which the server may not have read yet. Where only a superuser may see it
//! and the administrator is none, nothing is said.

use tokio_postgres::{
    error::SqlState,
    types::{ToSql, Type},
};

use super::{
    checks::Laboratory,
    finding::{Finding, FindingKind},
};
use crate::{ProvisionError, server::AdminSession};

/// A line of the file that decides on the log-ins of some laboratories.
pub(super) struct Line {
    /// `pg_hba.conf:12`
    place: String,
    /// The file on the server's host.
    file: String,
    /// The line's fields.
    text: String,
    /// How many of the roles that were asked about it decides on, and one of them.
    roles: i64,
    example: String,
}

/// The lines with an authentication method that decide on log-ins of these roles to these databases, which
/// are listed in pairs. An earlier line hides a later one when it fits the same log-ins from the same
/// addresses, or from all.
const LINES: &str = "
WITH rules AS (
    SELECT row_number() OVER () AS nr, h.*, coalesce(to_jsonb(h) ->> 'file_name', current_setting('hba_file')) AS file
      FROM pg_hba_file_rules h WHERE h.error IS NULL
), fits AS (
    SELECT r.*, l.role, l.database AS wanted FROM rules r
     CROSS JOIN unnest($1::text[], $2::text[]) AS l (role, database)
     WHERE EXISTS (SELECT FROM unnest(r.database) d WHERE d IN ('all', l.database) OR d = 'sameuser' AND l.role = l.database
                     OR d IN ('samerole', 'samegroup') AND pg_has_role(l.role, to_regrole(quote_ident(l.database)), 'MEMBER')
                     OR starts_with(d, '/') AND l.database ~ substr(d, 2))
       AND EXISTS (SELECT FROM unnest(r.user_name) u WHERE u IN ('all', l.role) OR starts_with(u, '/') AND l.role ~ substr(u, 2)
                     OR starts_with(u, '+') AND pg_has_role(l.role, to_regrole(quote_ident(substr(u, 2))), 'MEMBER'))
)
SELECT format('%s:%s', regexp_replace(f.file, '^.*/', ''), f.line_number), f.file,
       concat_ws(' ', f.type, array_to_string(f.database, ','), array_to_string(f.user_name, ','), f.address, f.netmask, f.auth_method),
       count(*), min(f.role)
  FROM fits f
 WHERE f.auth_method = $3 AND NOT EXISTS (
         SELECT FROM fits e WHERE e.role = f.role AND e.wanted = f.wanted AND e.nr < f.nr
            AND (e.type = f.type OR e.type = 'host' AND starts_with(f.type, 'host'))
            AND (e.address = 'all' OR (e.address, e.netmask) IS NOT DISTINCT FROM (f.address, f.netmask)))
 GROUP BY f.nr, f.file, f.line_number, f.type, f.database, f.user_name, f.address, f.netmask, f.auth_method ORDER BY f.nr";

async fn lines(
    session: &AdminSession,
    pairs: &[(&str, &str)],
    method: &'static str,
) -> Result<Vec<Line>, ProvisionError> {
    let (roles, databases): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
    let params: [(&(dyn ToSql + Sync), Type); 3] = [
        (&roles, Type::TEXT_ARRAY),
        (&databases, Type::TEXT_ARRAY),
        (&method, Type::TEXT),
    ];
    match session.client.query_typed(LINES, &params).await {
        Ok(rows) => Ok(rows
            .iter()
            .map(|row| Line {
                place: row.get(0),
                file: row.get(1),
                text: row.get(2),
                roles: row.get(3),
                example: row.get(4),
            })
            .collect()),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Vec::new()),
        Err(error) => Err(ProvisionError::db("reading pg_hba.conf", &session.target)(error)),
    }
}

/// Lines that let laboratories' roles, or the administrator, in without a password.
pub(super) async fn trusting(
    session: &AdminSession,
    laboratories: &[Laboratory],
) -> Result<Vec<Finding>, ProvisionError> {
    let mut pairs: Vec<(&str, &str)> = laboratories
        .iter()
        .map(|l| (l.role.as_str(), l.database.as_str()))
        .collect();
    pairs.push((&session.target.user, &session.target.database));
    let found = lines(session, &pairs, "trust").await?.into_iter().map(|line| {
        let others = match line.roles {
            1 => String::new(),
            more => format!(" and {} others", more - 1),
        };
        let seen = format!(
            "the line `{}` lets whoever reaches the server that way in as {}{others}, without a password",
            line.text, line.example
        );
        let advice = format!(
            "write scram-sha-256 in place of trust there ({}), then run `SELECT pg_reload_conf()`",
            line.file
        );
        Finding::new(FindingKind::LogInWithoutPassword, line.place, seen, advice)
    });
    Ok(found.collect())
}

/// The lines that reject the laboratory's role, as `pg_hba.conf:1 (host all all … reject)`.
pub(super) async fn rejecting(
    session: &AdminSession,
    role: &str,
    database: &str,
) -> Result<Vec<String>, ProvisionError> {
    let lines = lines(session, &[(role, database)], "reject").await?;
    Ok(lines
        .iter()
        .map(|line| format!("{} ({})", line.place, line.text))
        .collect())
}
