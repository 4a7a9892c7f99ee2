//! What a database is by its name: every name that a control plane gives begins with its namespace.

use model::{Namespace, OperationId, SchemaVersion, TenantId};

/// How much of a fingerprint names hold.
const FINGERPRINT_LENGTH: usize = 12;

/// What the name of a database in our namespace says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A laboratory's own, if the registry knows it.
    Laboratory,
    /// A clone that is to become this laboratory's.
    Making(TenantId),
    /// A copy in which this operation verifies its dump.
    Scratch(OperationId),
    /// What this operation puts in a laboratory's place, or what the laboratory had before that. One that
    /// failed may still need the first, and the second is the laboratory's own.
    Exchanged(OperationId),
    /// A sealed template.
    Template(Build),
    /// The template that is being built.
    TemplateBuilding,
    /// A clone that is kept ready, of the template with this fingerprint.
    Spare(String),
    /// Nothing that this code gives a name to.
    Other,
}

/// Which schema a template was made from; the version is `None` where the name does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    version: Option<SchemaVersion>,
    pub(super) fingerprint: String,
}

impl Build {
    fn of(rest: &str) -> Self {
        let (version, fingerprint) = rest.split_once('_').unwrap_or((rest, ""));
        let number = version.strip_prefix('v').and_then(|number| number.parse().ok());
        Self {
            version: number.map(SchemaVersion::new),
            fingerprint: fingerprint.to_owned(),
        }
    }

    /// Whether this code would clone it.
    pub(super) fn is_current(&self) -> bool {
        self.version == Some(migrator::latest()) && is_current(&self.fingerprint)
    }

    /// Whether nothing will clone it: it is not of this code's schema, nor of a newer one that another binary
    /// may use.
    pub(super) fn is_stale(&self) -> bool {
        !self.is_current() && self.version.is_none_or(|version| version <= migrator::latest())
    }
}

/// Whether a fingerprint, as far as names hold it, is that of this code's schema.
pub(super) fn is_current(fingerprint: &str) -> bool {
    migrator::fingerprint().get(..FINGERPRINT_LENGTH) == Some(fingerprint)
}

/// What `name` is; `None` outside the namespace.
pub(super) fn named(namespace: &Namespace, name: &str) -> Option<Named> {
    let rest = name.strip_prefix(namespace.as_str())?.strip_prefix('_')?;
    let named = match rest.split_once('_') {
        Some(("tenant", _)) => Named::Laboratory,
        Some(("making", id)) => uuid(id).map_or(Named::Other, |id| Named::Making(TenantId::from(id))),
        Some(("replaced" | "restored", id)) => {
            uuid(id).map_or(Named::Other, |id| Named::Exchanged(OperationId::from(id)))
        }
        Some(("scratch", id)) => uuid(id).map_or(Named::Other, |id| Named::Scratch(OperationId::from(id))),
        Some(("template", "building")) => Named::TemplateBuilding,
        Some(("template", rest)) => Named::Template(Build::of(rest)),
        Some(("spare", rest)) => Named::Spare(rest.split('_').next().unwrap_or_default().to_owned()),
        _ => Named::Other,
    };
    Some(named)
}

/// The ids in names are 32 hexadecimal digits.
fn uuid(text: &str) -> Option<uuid::Uuid> {
    (text.len() == 32)
        .then(|| uuid::Uuid::try_parse(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use model::Slug;

    use super::*;

    #[test]
    fn every_name_that_is_given_is_understood() {
        let namespace = Namespace::default();
        let (tenant, operation) = (TenantId::generate(), OperationId::generate());
        let read = |name: model::DbName| named(&namespace, name.as_str()).unwrap();
        let slug = Slug::parse("acme-lab").unwrap();
        assert_eq!(read(namespace.tenant_database(&slug)), Named::Laboratory);
        assert_eq!(
            read(namespace.database_in_the_making(tenant)),
            Named::Making(tenant)
        );
        assert_eq!(
            read(namespace.scratch_database(operation)),
            Named::Scratch(operation)
        );
        assert_eq!(
            read(namespace.restored_database(operation)),
            Named::Exchanged(operation)
        );
        assert_eq!(
            read(namespace.replaced_database(operation)),
            Named::Exchanged(operation)
        );
        assert_eq!(
            read(namespace.template_under_construction()),
            Named::TemplateBuilding
        );
        assert_eq!(named(&namespace, "lab_somebodys"), Some(Named::Other));
        assert_eq!(named(&namespace, "lab_making_x"), Some(Named::Other));
        for foreign in ["postgres", "lab", "labx_tenant_acme", "other_tenant_acme"] {
            assert_eq!(named(&namespace, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_template_is_stale_unless_it_is_of_this_code_or_a_newer_one() {
        let namespace = Namespace::default();
        let stale = |version: u32, fingerprint: &str| {
            let name = namespace.template_database(SchemaVersion::new(version), fingerprint);
            match named(&namespace, name.as_str()) {
                Some(Named::Template(build)) => build.is_stale(),
                other => panic!("{other:?}"),
            }
        };
        let latest = migrator::latest().number();
        let other = "0".repeat(64);
        assert!(!stale(latest, migrator::fingerprint()));
        assert!(stale(latest, &other));
        assert!(stale(latest - 1, migrator::fingerprint()));
        assert!(!stale(latest + 1, &other));
        let spare = migrator::spare_name(&namespace, 7);
        let read = named(&namespace, spare.as_str());
        assert!(
            matches!(&read, Some(Named::Spare(of)) if is_current(of)),
            "{read:?}"
        );
        assert!(matches!(named(&namespace, "lab_spare_1"), Some(Named::Spare(of)) if !is_current(&of)));
    }
}
