use model::Namespace;
use pg::ConnectTarget;
use tokio_postgres::{Client, error::SqlState};

use crate::MigrateError;

/// Makes the namespace's group role when it is missing. It cannot log in; laboratories' roles inherit what it was
/// granted inside their own database.
pub(crate) async fn group_role_ensure(
    client: &Client,
    target: &ConnectTarget,
    namespace: &Namespace,
) -> Result<(), MigrateError> {
    let group = namespace.group_role();
    let doing = "making the group role";
    let exists = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&group.as_str()])
        .await
        .map_err(MigrateError::db(doing, target))?
        .is_some();
    if exists {
        return Ok(());
    }
    let sql = format!("CREATE ROLE {group} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE");
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(()),
        // Someone else was faster; two at the very same moment meet in the unique index.
        Err(error)
            if [
                Some(&SqlState::DUPLICATE_OBJECT),
                Some(&SqlState::UNIQUE_VIOLATION),
            ]
            .contains(&error.code()) =>
        {
            Ok(())
        }
        Err(error) => Err(MigrateError::db(doing, target)(error)),
    }
}
