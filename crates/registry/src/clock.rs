use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::{RegistryError, sql};

/// The time on the registry's own clock, which sets and compares leases and every `not_before`.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn registry_now(client: &impl GenericClient) -> Result<Timestamp, RegistryError> {
    let row = sql::row_one(client, "asking for the time", "SELECT clock_timestamp()", &[]).await?;
    Ok(row.get(0))
}
