//! What a database holds beside its shape, its sequences and its rows: what a dump carries over with it, what
//! it leaves out, and what a restore needs from the server. The statement `inventory.sql` is the one list of
//! every kind of object.

use serde::{Deserialize, Serialize};

/// One thing that no dump carries over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What kind of thing: a subscription, a prepared transaction, a replication slot, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why it is left out, or what becomes of it.
    pub why: String,
}

/// What belongs to another role than the one that makes dumps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The role.
    pub role: String,
    /// What, as `ALTER … OWNER TO` takes it: `TABLE public.note`.
    pub object: String,
    /// Whether it is a function that runs with its owner's rights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub definer: bool,
}

/// How a database compares and sorts text, which only its creation decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locale {
    /// The encoding's name.
    pub encoding: String,
    /// `c` for the operating system's, `i` for ICU, `b` for PostgreSQL's own.
    pub provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// The locale of ICU or of PostgreSQL's own provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// ICU's additional rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}

/// The statement that gives a database's [`Locale`] as JSON; `$1` is its name. The columns' names differ
/// between versions.
pub const LOCALE: &str = "SELECT jsonb_strip_nulls(jsonb_build_object(
        'encoding', pg_encoding_to_char(encoding), 'provider', coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
        'collate', datcollate, 'ctype', datctype,
        'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
        'rules', to_jsonb(d) ->> 'daticurules'))::text
   FROM pg_database d WHERE datname = $1::text";

impl Locale {
    /// The options of `CREATE DATABASE … TEMPLATE template0` on a server of the major version `server_major`.
    #[must_use]
    pub fn options(&self, server_major: u32) -> String {
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut options = format!(
            "ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype)
        );
        // Before 15 there was no other provider.
        if server_major < 15 && self.provider == "c" {
            return options;
        }
        let (provider, key) = match self.provider.as_str() {
            "i" => ("icu", "ICU_LOCALE"),
            "b" => ("builtin", "BUILTIN_LOCALE"),
            _ => ("libc", ""),
        };
        options.push_str(&format!(" LOCALE_PROVIDER {provider}"));
        if let (Some(locale), false) = (&self.locale, key.is_empty()) {
            options.push_str(&format!(" {key} {}", literal(locale)));
        }
        if let Some(rules) = &self.rules {
            options.push_str(&format!(" ICU_RULES {}", literal(rules)));
        }
        options
    }
}

/// What stands in a manifest about all that is no row; each part is empty in manifests of earlier versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// What the dump does not carry over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What belonged to other roles than the one that made the dump.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<Owned>,
    /// Roles without which it cannot be restored: row security policies and user mappings name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_roles: Vec<String>,
    /// Roles that have a right on something; it is left out where they are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted_roles: Vec<String>,
    /// Tablespaces in which something lay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<String>,
    /// How the database compared text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Locale>,
}

/// The lines of `inventory.sql`, sorted out.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) objects: Vec<String>,
    pub(crate) derived: Vec<String>,
    pub(crate) inventory: Inventory,
}

impl Read {
    pub(crate) fn take(&mut self, [what, a, b, c]: [&str; 4]) {
        let inventory = &mut self.inventory;
        match what {
            "object" => self.objects.push(a.to_owned()),
            "derived" => self.derived.push(a.to_owned()),
            "left_out" => inventory.left_out.push(LeftOut {
                kind: a.to_owned(),
                name: b.to_owned(),
                why: c.to_owned(),
            }),
            "owner" => inventory.owners.push(Owned {
                role: a.to_owned(),
                object: b.to_owned(),
                definer: c == "definer",
            }),
            "role" => {
                if !inventory.required_roles.iter().any(|known| known == a) {
                    inventory.required_roles.push(a.to_owned());
                }
            }
            "grantee" => inventory.granted_roles.push(a.to_owned()),
            "tablespace" => inventory.tablespaces.push(a.to_owned()),
            other => unreachable!("inventory.sql gives no line {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_with_the_provider_and_locale_that_it_had() {
        let locale = |provider: &str, locale: Option<&str>| Locale {
            encoding: "UTF8".to_owned(),
            provider: provider.to_owned(),
            collate: "C".to_owned(),
            ctype: "it's".to_owned(),
            locale: locale.map(str::to_owned),
            rules: None,
        };
        let base = "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'it''s'";
        assert_eq!(locale("c", None).options(14), base);
        assert_eq!(
            locale("c", None).options(15),
            format!("{base} LOCALE_PROVIDER libc")
        );
        assert_eq!(
            locale("i", Some("de")).options(16),
            format!("{base} LOCALE_PROVIDER icu ICU_LOCALE 'de'")
        );
        assert_eq!(
            locale("b", Some("C.UTF-8")).options(17),
            format!("{base} LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'")
        );
    }
}
