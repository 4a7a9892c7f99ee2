//! Rights in a dump, one statement at a time. `pg_restore` ends at the first GRANT to a role that the server
//! does not have, or goes on past every error; here those of missing roles are left out, and no other.

/// One statement about rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// To be run as it is; several statements where a role other than the owner gave the right.
    pub(crate) sql: String,
    /// The roles that it names.
    pub(crate) roles: Vec<String>,
}

/// A word of SQL, as far as statements about rights need it.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A keyword or a name without quotation marks.
    Word(String),
    /// A name in quotation marks, or a text.
    Quoted(String),
    /// Anything else.
    Sign(char),
}

/// The statements about rights in what `pg_restore` writes for the entries of kind ACL and DEFAULT ACL.
pub(crate) fn statements(script: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    // A right that a role gave which is not the owner.
    let mut given_by: Option<(String, String)> = None;
    for (sql, tokens) in split(script) {
        let starts_with = |words: &[&str]| {
            words.iter().enumerate().all(
                |(at, word)| matches!(tokens.get(at), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word)),
            )
        };
        if starts_with(&["SET", "SESSION", "AUTHORIZATION"]) {
            given_by = match tokens.get(3) {
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("DEFAULT") => None,
                Some(Token::Word(role) | Token::Quoted(role)) => Some((role.clone(), sql)),
                _ => None,
            };
        } else if starts_with(&["RESET", "SESSION", "AUTHORIZATION"]) {
            given_by = None;
        } else if is_right(&tokens) || starts_with(&["ALTER", "DEFAULT", "PRIVILEGES"]) {
            let mut roles = roles_of(&tokens);
            let sql = match &given_by {
                Some((role, set)) => {
                    roles.push(role.clone());
                    format!("{set};\n{sql};\nRESET SESSION AUTHORIZATION")
                }
                None => sql,
            };
            found.push(Statement { sql, roles });
        }
    }
    found
}

/// A right on an object. Without ON it would be a membership, which no dump of a database has.
fn is_right(tokens: &[Token]) -> bool {
    let is =
        |token: &Token, wanted: &str| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted));
    let verb = tokens
        .first()
        .is_some_and(|first| is(first, "GRANT") || is(first, "REVOKE"));
    verb && tokens.iter().any(|token| is(token, "ON"))
}

/// The role after the last TO or FROM, and the one after FOR ROLE.
fn roles_of(tokens: &[Token]) -> Vec<String> {
    let word = |token: &Token, words: &[&str]| matches!(token, Token::Word(found) if words.iter().any(|word| found.eq_ignore_ascii_case(word)));
    let mut roles = Vec::new();
    let grantee = tokens.iter().rposition(|token| word(token, &["TO", "FROM"]));
    let of = tokens
        .windows(2)
        .position(|pair| word(&pair[0], &["FOR"]) && word(&pair[1], &["ROLE", "USER"]))
        .map(|at| at + 1);
    for at in grantee.into_iter().chain(of) {
        match tokens.get(at + 1) {
            Some(Token::Word(name)) if !name.eq_ignore_ascii_case("PUBLIC") => roles.push(name.clone()),
            Some(Token::Quoted(name)) => roles.push(name.clone()),
            _ => {}
        }
    }
    roles
}

/// Statements without their semicolons, each with its tokens; comments are left out.
fn split(script: &str) -> Vec<(String, Vec<Token>)> {
    let (mut found, mut sql, mut tokens) = (Vec::new(), String::new(), Vec::new());
    let mut rest = script.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '-' if rest.peek() == Some(&'-') => {
                for c in rest.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
            }
            ';' => {
                if !tokens.is_empty() {
                    found.push((sql.trim().to_owned(), std::mem::take(&mut tokens)));
                }
                sql.clear();
            }
            '"' | '\'' => {
                sql.push(c);
                let mut text = String::new();
                while let Some(inner) = rest.next() {
                    sql.push(inner);
                    if inner != c {
                        text.push(inner);
                    } else if rest.peek() == Some(&c) {
                        text.push(c);
                        sql.extend(rest.next());
                    } else {
                        break;
                    }
                }
                tokens.push(Token::Quoted(text));
            }
            c if c.is_whitespace() => sql.push(c),
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                    word.push(next);
                }
                sql.push_str(&word);
                tokens.push(Token::Word(word));
            }
            c => {
                sql.push(c);
                tokens.push(Token::Sign(c));
            }
        }
    }
    found
}

/// Which lines of `pg_restore --list` speak of rights.
pub(crate) fn is_about_rights(line: &str) -> bool {
    // `3456; 0 0 ACL public TABLE note owner`
    let mut words = line.split(' ').skip(3);
    match words.next() {
        Some("ACL") => true,
        Some("DEFAULT") => words.next() == Some("ACL"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_about_rights_has_the_roles_that_it_names() {
        let script = "
--
-- Name: TABLE \"to\"; Type: ACL; Schema: it's
--
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT SELECT ON TABLE public.\"x; to \"\"y\" TO \"gone; to \"\"you\"\"\" WITH GRANT OPTION;
GRANT SELECT(id),UPDATE(\"TO\") ON TABLE public.t TO lab_dml;
SET SESSION AUTHORIZATION boss;
GRANT SELECT ON TABLE public.t TO clerk;
RESET SESSION AUTHORIZATION;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA zoo REVOKE ALL ON TABLES  FROM reader;
";
        let found: Vec<(String, Vec<String>)> = statements(script)
            .into_iter()
            .map(|statement| (statement.sql, statement.roles))
            .collect();
        let roles = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(found.len(), 5, "{found:#?}");
        assert_eq!(
            found[0],
            ("REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(), roles(&[]))
        );
        assert_eq!(found[1].1, roles(&["gone; to \"you\""]));
        assert!(found[1].0.ends_with("WITH GRANT OPTION"));
        assert_eq!(found[2].1, roles(&["lab_dml"]));
        assert_eq!(found[3].1, roles(&["clerk", "boss"]));
        assert_eq!(
            found[3].0,
            "SET SESSION AUTHORIZATION boss;\nGRANT SELECT ON TABLE public.t TO clerk;\nRESET SESSION AUTHORIZATION"
        );
        assert_eq!(found[4].1, roles(&["reader", "owner"]));
    }

    #[test]
    fn entries_about_rights_are_told_from_others_by_their_kind() {
        for (line, expected) in [
            ("3456; 0 0 ACL public TABLE note owner", true),
            (
                "2061; 826 16500 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES owner",
                true,
            ),
            ("215; 1259 16386 TABLE public ACL owner", false),
            ("215; 1259 16386 DEFAULT public note id owner", false),
            (";     Format: CUSTOM", false),
        ] {
            assert_eq!(is_about_rights(line), expected, "{line}");
        }
    }
}
