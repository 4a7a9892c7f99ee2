//! The comment by which a database or role on a server is known to be a laboratory's own.

use registry::Tenant;

/// The comment that a laboratory's role and database carry.
pub(crate) fn ownership_comment(tenant: &Tenant) -> String {
    format!("{}{}", migrator::OWNERSHIP_COMMENT, tenant.id)
}
