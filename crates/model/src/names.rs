//! One door to DDL: a database or role name is made from a [`Slug`] or read back from the registry, and
//! prints quoted.

use std::{fmt, str::FromStr};

use crate::Slug;

/// PostgreSQL's `NAMEDATALEN` less its terminator; the server would silently cut a longer name.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Why a text cannot be the name of a database, role, server or namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} cannot be the name of a {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

/// Quotes an identifier for SQL: `a"b` becomes `"a""b"`.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The most bytes.
            pub const BYTES_MAX: usize = IDENTIFIER_BYTES_MAX;

            /// Takes over a name that the registry or the server's own catalogue holds.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, longer than PostgreSQL's 63 bytes or holds a control
            /// character.
            pub fn from_catalog(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX || name.chars().any(char::is_control) {
                    return Err(NameError {
                        what: $what,
                        given: name,
                        rule: "it must have 1 to 63 bytes and no control characters",
                    });
                }
                Ok(Self(name))
            }

            /// The bare name, for connection parameters and bound values; never for SQL text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as SQL text.
            #[must_use]
            pub fn quoted(&self) -> String {
                quote_ident(&self.0)
            }
        }

        /// Prints the name quoted, so that formatting it into SQL is always safe.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.quoted())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

identifier!(
    /// The name of a database.
    DbName,
    "database"
);
identifier!(
    /// The name of a role.
    RoleName,
    "role"
);

/// The name under which the registry knows a PostgreSQL server, such as `main`: it never reaches SQL as an
/// identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ServerName(String);

impl ServerName {
    /// The most characters.
    pub const LENGTH_MAX: usize = 40;

    /// Checks a server's name: 1 to 40 lower-case letters, digits and hyphens.
    ///
    /// # Errors
    /// [`NameError`] otherwise.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits {
            let rule = "it must have 1 to 40 lower-case letters, digits and hyphens";
            return Err(NameError {
                what: "server",
                given: text.to_owned(),
                rule,
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerName({})", self.0)
    }
}

/// The prefix of every database and role that one control plane owns on a server, so that several (staging
/// beside production, or tests beside each other) can share it. `lab` unless configured.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Namespace(String);

impl Default for Namespace {
    fn default() -> Self {
        Self("lab".to_owned())
    }
}

impl Namespace {
    /// The most bytes of a prefix: with `_tenant_` and the longest slug the name has at most 60.
    pub const LENGTH_MAX: usize = 12;

    /// Checks a prefix: `^[a-z][a-z0-9]{0,11}$`.
    ///
    /// # Errors
    /// [`NameError`] otherwise.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = text.len() <= Self::LENGTH_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits {
            let rule = "it must have 1 to 12 lower-case letters and digits and start with a letter";
            return Err(NameError {
                what: "namespace",
                given: text.to_owned(),
                rule,
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The database of a laboratory: `lab_tenant_<slug>`.
    #[must_use]
    pub fn tenant_database(&self, slug: &Slug) -> DbName {
        DbName(format!("{}_tenant_{slug}", self.0))
    }

    /// The database of a laboratory while it is being cloned: it gets its real name once it is marked as this
    /// laboratory's, so that a database under the real name is never half made and never another's.
    #[must_use]
    pub fn database_in_the_making(&self, tenant: crate::TenantId) -> DbName {
        DbName(format!("{}_making_{}", self.0, tenant.as_uuid().simple()))
    }

    /// The log-in role of a laboratory; it has the name of the database.
    #[must_use]
    pub fn tenant_role(&self, slug: &Slug) -> RoleName {
        RoleName(format!("{}_tenant_{slug}", self.0))
    }

    /// The group role of one laboratory: it holds what the laboratory's role may do inside the laboratory's
    /// database, and that role is its only member. It has the tenant's id and not its slug, so that a dump
    /// names a role that no other laboratory has, also after the slug was given to another laboratory.
    #[must_use]
    pub fn tenant_group(&self, tenant: crate::TenantId) -> RoleName {
        RoleName(format!(
            "{}{}",
            self.tenant_group_prefix(),
            tenant.as_uuid().simple()
        ))
    }

    /// What the name of every laboratory's group role begins with.
    #[must_use]
    pub fn tenant_group_prefix(&self) -> String {
        format!("{}_dml_", self.0)
    }

    /// The group role that earlier versions shared among all laboratories. It has no members any more;
    /// archives of those versions name it.
    #[must_use]
    pub fn shared_group(&self) -> RoleName {
        RoleName(format!("{}_dml", self.0))
    }

    /// The group role of a spare, which has the spare's name until a laboratory claims both.
    #[must_use]
    pub fn spare_group(&self, fingerprint: &str, number: u64) -> RoleName {
        RoleName(self.spare_database(fingerprint, number).0)
    }

    /// The sealed template of one tenant schema. `fingerprint` tells apart two states of the same version
    /// number, as a developer makes them while writing a migration.
    #[must_use]
    pub fn template_database(&self, version: crate::SchemaVersion, fingerprint: &str) -> DbName {
        let fingerprint: String = fingerprint
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(12)
            .collect();
        DbName(format!("{}_template_v{version}_{fingerprint}", self.0))
    }

    /// The database that a template has while it is being built; it gets its real name when it is whole.
    #[must_use]
    pub fn template_under_construction(&self) -> DbName {
        DbName(format!("{}_template_building", self.0))
    }

    /// The database into which one operation restores what is to take a laboratory's place.
    #[must_use]
    pub fn restored_database(&self, operation: crate::OperationId) -> DbName {
        DbName(format!("{}_restored_{}", self.0, operation.as_uuid().simple()))
    }

    /// The database that one operation has taken out of a laboratory's place, until it is dropped.
    #[must_use]
    pub fn replaced_database(&self, operation: crate::OperationId) -> DbName {
        DbName(format!("{}_replaced_{}", self.0, operation.as_uuid().simple()))
    }

    /// What the name of every spare of this schema begins with.
    #[must_use]
    pub fn spare_prefix(&self, fingerprint: &str) -> String {
        let fingerprint: String = fingerprint
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(12)
            .collect();
        format!("{}_spare_{fingerprint}_", self.0)
    }

    /// A spare: a clone made ahead of time, to be claimed by renaming it.
    #[must_use]
    pub fn spare_database(&self, fingerprint: &str, number: u64) -> DbName {
        DbName(format!("{}{number:016x}", self.spare_prefix(fingerprint)))
    }

    /// A database that is to be a spare, until it is one.
    #[must_use]
    pub fn spare_in_the_making(&self, number: u64) -> DbName {
        DbName(format!("{}_spare_making_{number:016x}", self.0))
    }

    /// The scratch database in which one operation verifies its dump.
    #[must_use]
    pub fn scratch_database(&self, operation: crate::OperationId) -> DbName {
        DbName(format!("{}_scratch_{}", self.0, operation.as_uuid().simple()))
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OperationId, SchemaVersion, TenantId};

    #[test]
    fn names_print_quoted_and_stay_under_the_servers_limit() {
        let namespace = Namespace::parse("abcdefghijkl").unwrap();
        let slug = Slug::parse(&"a".repeat(Slug::LENGTH_MAX)).unwrap();
        let names = [
            namespace.tenant_database(&slug),
            namespace.template_database(SchemaVersion::new(9999), &"f".repeat(64)),
            namespace.scratch_database(OperationId::generate()),
            namespace.restored_database(OperationId::generate()),
            namespace.replaced_database(OperationId::generate()),
            namespace.spare_database(&"f".repeat(64), u64::MAX),
            namespace.spare_in_the_making(u64::MAX),
            namespace.database_in_the_making(TenantId::generate()),
        ];
        for name in names {
            assert!(name.as_str().len() <= 63, "{name}");
            assert_eq!(name.to_string(), format!("\"{}\"", name.as_str()));
        }
        assert_eq!(DbName::from_catalog("a\"b").unwrap().to_string(), "\"a\"\"b\"");
    }

    #[test]
    fn names_that_no_server_could_hold_are_refused() {
        for bad in [
            String::new(),
            "x".repeat(64),
            "a\0b".to_owned(),
            "a\nb".to_owned(),
        ] {
            assert!(DbName::from_catalog(bad.clone()).is_err(), "{bad:?}");
        }
        for bad in ["", "Lab", "1lab", "a_b", "abcdefghijklm"] {
            assert!(Namespace::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "Main", "a b"] {
            assert!(ServerName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
