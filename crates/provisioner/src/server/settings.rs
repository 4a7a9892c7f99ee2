//! What belongs to a database and is not in it: its owner, who may connect, and its settings. No dump of it
//! has them, so they are read from the database that is replaced, and given to the one that takes its place.

use model::{DbName, quote_ident};

use crate::{ProvisionError, server::AdminSession};
use pg::literal;

/// Settings whose value is a list of names: kept as one text, and taken only as the list that it was. The
/// same list stands in `pg_dump`; extensions cannot have such settings.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Statements that give to `to` what `of` has: the owner, rights that roles hold by name, and settings, also
/// those of one role in this database. Not what PUBLIC may: a laboratory's database gives it nothing.
pub(crate) async fn handed_on(
    session: &AdminSession,
    of: &DbName,
    to: &DbName,
) -> Result<Vec<String>, ProvisionError> {
    let failed = || ProvisionError::db("reading the rights and settings of the database", &session.target);
    let rows = session
        .client
        .query(
            "SELECT format('ALTER DATABASE %s OWNER TO %I', $2::text, pg_get_userbyid(datdba))
               FROM pg_database WHERE datname = $1
             UNION ALL
             SELECT format('GRANT %s ON DATABASE %s TO %I%s', a.privilege_type, $2, r.rolname,
                           CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
               FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
              WHERE d.datname = $1 AND a.grantee <> d.datdba",
            &[&of.as_str(), &to.to_string()],
        )
        .await
        .map_err(failed())?;
    let mut statements: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let rows = session
        .client
        .query(
            "SELECT quote_ident(r.rolname), s.setconfig
               FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
              WHERE d.datname = $1 AND (s.setrole = 0 OR r.oid IS NOT NULL)",
            &[&of.as_str()],
        )
        .await
        .map_err(failed())?;
    for row in rows {
        let (role, settings): (Option<String>, Vec<String>) = (row.get(0), row.get(1));
        let of_whom = match role {
            Some(role) => format!("ALTER ROLE {role} IN DATABASE {to}"),
            None => format!("ALTER DATABASE {to}"),
        };
        let settings = settings.iter().filter_map(|setting| setting.split_once('='));
        statements.extend(
            settings.map(|(name, value)| {
                format!("{of_whom} SET {} TO {}", quote_ident(name), written(name, value))
            }),
        );
    }
    Ok(statements)
}

/// A setting's kept value as a statement takes it.
fn written(name: &str, value: &str) -> String {
    if !LISTS.contains(&name) || value.is_empty() {
        return literal(value);
    }
    let members: Vec<String> = members(value).iter().map(|member| literal(member)).collect();
    members.join(", ")
}

/// The members of a list, some of them quoted as names are.
fn members(list: &str) -> Vec<String> {
    let (mut found, mut member, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = list.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                member.push('"');
                rest.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(std::mem::take(&mut member)),
            c if c.is_whitespace() && !quoted => {}
            c => member.push(c),
        }
    }
    found.push(member);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_its_members_and_anything_else_as_one_text() {
        for (name, value, expected) in [
            ("search_path", r#""$user", public"#, "'$user', 'public'"),
            ("search_path", r#""a, ""b""",c"#, r#"'a, "b"', 'c'"#),
            ("search_path", "", "''"),
            ("search_path", r#""""#, "''"),
            ("work_mem", "64MB", "'64MB'"),
            ("my.words", r#"it's, "so""#, r#"'it''s, "so"'"#),
        ] {
            assert_eq!(written(name, value), expected, "{name} = {value}");
        }
    }
}
