//! Where laboratories came from: which of them were databases of somebody's before.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use model::TenantId;

use crate::{RegistryError, sql};

/// The laboratories in whose databases roles of their own people and programs may have rights: those that
/// were adopted, and those that were restored from an archive of one of these, or of one whose origin is not
/// known, as of an imported archive.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn tenants_with_people(client: &impl GenericClient) -> Result<HashSet<TenantId>, RegistryError> {
    let statement = "WITH RECURSIVE restored AS (
             SELECT o.tenant_id, a.tenant_id AS from_id,
                    NOT EXISTS (SELECT FROM operations m WHERE m.tenant_id = a.tenant_id
                                   AND m.kind IN ('provision', 'adopt', 'restore')) AS of_unknown_origin
               FROM operations o LEFT JOIN archives a ON a.id::text = o.params ->> 'archive'
              WHERE o.kind IN ('restore', 'restore_in_place') AND o.status <> 'failed' AND o.status <> 'cancelled'
         ), people (tenant_id) AS (
             SELECT tenant_id FROM operations WHERE kind = 'adopt'
             UNION SELECT tenant_id FROM restored WHERE of_unknown_origin
             UNION SELECT r.tenant_id FROM restored r JOIN people p ON p.tenant_id = r.from_id
         )
         SELECT DISTINCT p.tenant_id FROM people p JOIN tenants t ON t.id = p.tenant_id";
    let rows = sql::rows(client, "looking where laboratories came from", statement, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| TenantId::from(row.get::<_, uuid::Uuid>(0)))
        .collect())
}
