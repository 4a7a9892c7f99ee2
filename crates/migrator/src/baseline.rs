//! Taking over a database that has the schema and no history of it: what each version looks like, and the
//! history written as a migration run would have written it.

use model::SchemaVersion;
use pg::ConnectTarget;
use refinery::Target;
use tokio_postgres::Client;

use crate::{
    MigrateError,
    history::history_version,
    lock::{Guarded, acquire, session},
    run::migration_error,
    source,
};

/// Runs the migrations up to `version` and applies no grants: to see what a database at that version looks
/// like. Only for a database that nobody else uses.
///
/// # Errors
/// [`MigrateError::Migration`] when one fails.
pub async fn migrate_scratch(
    client: &mut Client,
    place: &ConnectTarget,
    version: SchemaVersion,
) -> Result<(), MigrateError> {
    run(client, place, Target::Version(number(version))).await
}

/// Writes down that a database which has no history yet has the migrations up to `version`, and runs none:
/// the history's table is made, with the rows that a run would have written. Run again it finds them.
///
/// # Errors
/// [`MigrateError::Baselined`] when its history says another version; [`MigrateError::Busy`].
pub async fn baseline_write(admin: &ConnectTarget, version: SchemaVersion) -> Result<(), MigrateError> {
    let mut client = session(admin).await?;
    acquire(&client, admin, Guarded::Migration).await?;
    let have = history_version(&client).await?;
    if have == SchemaVersion::default() {
        run(&mut client, admin, Target::FakeVersion(number(version))).await?;
    }
    let have = history_version(&client).await?;
    if have != version {
        return Err(MigrateError::Baselined {
            database: admin.database.clone(),
            have,
            wanted: version,
        });
    }
    Ok(())
}

async fn run(client: &mut Client, place: &ConnectTarget, target: Target) -> Result<(), MigrateError> {
    let runner = source::runner().set_target(target);
    let outcome = runner.run_async(client).await;
    outcome
        .map(|_report| ())
        .map_err(|error| migration_error(place, error))
}

fn number(version: SchemaVersion) -> i32 {
    i32::try_from(version.number()).unwrap_or(i32::MAX)
}
