//! Words of SQL that several modules write.

use registry::Tenant;

/// How the registry marks a role or database on a server as one laboratory's own.
pub(crate) fn ownership_comment(tenant: &Tenant) -> String {
    format!("{}{}", migrator::OWNERSHIP_COMMENT, tenant.id)
}

/// A text as an SQL literal. Needed where the server takes no parameters: in DDL.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_hold_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
    }
}
