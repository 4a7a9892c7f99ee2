//! The one way statements are run: prepared once per connection, so that a warm call costs one round trip.
//!
//! A change of the schema, as an upgrade makes it while processes of the version before go on, makes prepared
//! statements useless. One that fails by that is prepared and run once more at once. In a transaction that
//! cannot help, since it is lost: [`crate::Registry::in_txn`] begins it again. In both cases [`changes_seen`]
//! goes up, and no connection is lent any more with what was prepared before.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use deadpool_postgres::GenericClient;
use tokio_postgres::{Row, types::ToSql};

use crate::RegistryError;

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How often a statement of this process turned out to be outdated. Of the process and not of a pool, because
/// a client does not say which pool it came from; at worst another pool prepares its statements once more.
static CHANGES_SEEN: AtomicU64 = AtomicU64::new(0);

/// Goes up when statements that were prepared before turn out to be outdated.
pub(crate) fn changes_seen() -> u64 {
    CHANGES_SEEN.load(Relaxed)
}

/// Runs a statement by a method of the client; once more and freshly prepared if it was outdated. A macro,
/// because the future of a function that takes an async closure is not `Send` for the compiler.
macro_rules! run {
    ($client:ident . $method:ident, $doing:ident, $sql:ident, $params:ident) => {{
        let prepared = async {
            $client
                .$method(&$client.prepare_cached($sql).await?, $params)
                .await
        };
        let error = match prepared.await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if pg::is_outdated(&error) {
            CHANGES_SEEN.fetch_add(1, Relaxed);
            let again = async { $client.$method(&$client.prepare($sql).await?, $params).await };
            if let Ok(done) = again.await {
                return Ok(done);
            }
        }
        Err(RegistryError::from_driver($doing, error))
    }};
}

pub(crate) async fn rows(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, RegistryError> {
    run!(client.query, doing, sql, params)
}

pub(crate) async fn row_opt(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Option<Row>, RegistryError> {
    run!(client.query_opt, doing, sql, params)
}

pub(crate) async fn row_one(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<Row, RegistryError> {
    run!(client.query_one, doing, sql, params)
}

/// How many rows the statement touched.
pub(crate) async fn touched(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, RegistryError> {
    run!(client.execute, doing, sql, params)
}
