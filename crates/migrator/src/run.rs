use model::{RoleName, SchemaVersion};
use pg::ConnectTarget;
use tokio_postgres::Client;

use crate::{
    MigrateError,
    group::group_ensure,
    history::history_version,
    lock::{Guarded, acquire, session},
    source,
};

/// Brings the database that `admin` names to this code's version, gives the laboratory's group role its
/// rights, and returns the version that its own history then shows. Does nothing harmful when run again, or
/// by many at once: one works, the others wait.
///
/// Each migration runs in a transaction of its own, so one that fails or is killed leaves the version before
/// it.
///
/// # Errors
/// [`MigrateError::Ahead`] when a newer binary was here; [`MigrateError::CorruptHistory`] when the history
/// makes no sense; [`MigrateError::Busy`] when another process holds the lock for too long.
pub async fn migrate_database(
    admin: &ConnectTarget,
    group: &RoleName,
) -> Result<SchemaVersion, MigrateError> {
    migrate(admin, Some(group)).await
}

/// The same without a group, as for the template: nobody has a right in it.
pub(crate) async fn migrate(
    admin: &ConnectTarget,
    group: Option<&RoleName>,
) -> Result<SchemaVersion, MigrateError> {
    let mut client = session(admin).await?;
    acquire(&client, admin, Guarded::Migration).await?;
    let have = history_version(&client).await?;
    let code = source::latest();
    if have > code {
        return Err(MigrateError::Ahead {
            database: admin.database.clone(),
            have,
            code,
        });
    }
    if let Some(group) = group {
        group_ensure(&client, group).await?;
    }
    run(&mut client, admin).await?;
    let grants = client
        .transaction()
        .await
        .map_err(MigrateError::db("applying the grants", admin))?;
    grants
        .batch_execute(&source::grants(group))
        .await
        .map_err(MigrateError::db("applying the grants", admin))?;
    grants
        .commit()
        .await
        .map_err(MigrateError::db("applying the grants", admin))?;
    let reached = history_version(&client).await?;
    if reached != code {
        return Err(MigrateError::NotReached {
            database: admin.database.clone(),
            have: reached,
            code,
        });
    }
    if have != reached {
        tracing::info!(database = %admin.database, from = %have, to = %reached, "database migrated");
    }
    Ok(reached)
}

async fn run(client: &mut Client, admin: &ConnectTarget) -> Result<(), MigrateError> {
    let outcome = source::runner().run_async(client).await;
    outcome
        .map(|_report| ())
        .map_err(|error| migration_error(admin, error))
}

/// refinery's error, with what the server said.
pub(crate) fn migration_error(place: &ConnectTarget, error: refinery::Error) -> MigrateError {
    let why = match std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>())
    {
        Some(cause) => format!("{error}: {}", pg::describe(cause)),
        None => error.to_string(),
    };
    MigrateError::Migration {
        database: place.database.clone(),
        why,
        carries: source::names(),
        source: Box::new(error),
    }
}
