//! The one way statements are run: prepared once per connection, so that a warm call costs one round trip.

use deadpool_postgres::GenericClient;
use tokio_postgres::{Row, types::ToSql};

use crate::RegistryError;

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(crate) async fn rows(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, RegistryError> {
    let run = async { client.query(&client.prepare_cached(sql).await?, params).await };
    run.await.map_err(|e| RegistryError::from_driver(doing, e))
}

pub(crate) async fn row_opt(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Option<Row>, RegistryError> {
    let run = async { client.query_opt(&client.prepare_cached(sql).await?, params).await };
    run.await.map_err(|e| RegistryError::from_driver(doing, e))
}

pub(crate) async fn row_one(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Row, RegistryError> {
    let run = async { client.query_one(&client.prepare_cached(sql).await?, params).await };
    run.await.map_err(|e| RegistryError::from_driver(doing, e))
}

/// How many rows the statement touched.
pub(crate) async fn touched(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, RegistryError> {
    let run = async { client.execute(&client.prepare_cached(sql).await?, params).await };
    run.await.map_err(|e| RegistryError::from_driver(doing, e))
}
