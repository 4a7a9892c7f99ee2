//! The sealed database that every laboratory is cloned from.
//!
//! It is built under another name and gets its own as the very last act, so that whoever sees the final name
//! sees a whole template, wherever a builder was killed. All statements that make, seal, rename or drop a
//! database run on the session that holds the lock: a builder that lost the lock cannot finish.
//!
//! How it is cloned is decided by the server's version, in the module `clone`.

use std::time::{Duration, Instant};

use model::{DbName, Namespace};
use pg::ConnectTarget;
use tokio_postgres::{Client, GenericClient, types::Type};

use crate::{
    MigrateError,
    clone::create_database,
    lock::{Guarded, MAINTENANCE_DATABASE, acquire, is_held, session},
    run::migrate,
    source,
};

/// How long to let the backend of our own finished migration go by itself before sealing.
pub(crate) const BACKEND_GONE_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait between two looks at it.
const BACKEND_GONE_PAUSE: Duration = Duration::from_millis(5);

/// The template of this code's schema, when it is there already: one question on a session that the caller
/// has anyway.
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn template_find(
    client: &impl GenericClient,
    namespace: &Namespace,
) -> Result<Option<DbName>, MigrateError> {
    let name = namespace.template_database(source::latest(), source::fingerprint());
    let row = client
        .query_typed_one(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate AND NOT datallowconn)",
            &[(&name.as_str(), Type::NAME)],
        )
        .await
        .map_err(MigrateError::db("looking for the template", "the server"))?;
    Ok(row.get::<_, bool>(0).then_some(name))
}

/// Whether somebody builds a template of the namespace at this moment, asked on a session in
/// [`MAINTENANCE_DATABASE`].
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn template_is_being_built(
    client: &impl GenericClient,
    namespace: &Namespace,
) -> Result<bool, MigrateError> {
    let held = is_held(client, Guarded::Template(namespace)).await;
    held.map_err(MigrateError::db(
        "looking for builders of the template",
        "the server",
    ))
}

/// The template of this code's schema, built first when it is missing.
///
/// Safe to be killed at any moment and to be called by many at once: one builds, the others wait for it. When
/// a new one was built, templates of the namespace with an older or the same version number but another
/// content are dropped, since nothing will clone them any more; those of a newer version belong to a newer
/// binary and stay.
///
/// # Errors
/// [`MigrateError`] when the server cannot be reached, a migration fails or another builder takes too long.
pub async fn template_ensure(admin: &ConnectTarget, namespace: &Namespace) -> Result<DbName, MigrateError> {
    let target = admin.with_database(MAINTENANCE_DATABASE);
    let builder = Builder {
        client: session(&target).await?,
        target,
        namespace,
        name: namespace.template_database(source::latest(), source::fingerprint()),
    };
    if let Some(name) = template_find(&builder.client, namespace).await? {
        return Ok(name);
    }
    acquire(&builder.client, &builder.target, Guarded::Template(namespace)).await?;
    if builder.look(&builder.name).await? != Some(Seal::Closed) {
        builder.build().await?;
        builder.drop_superseded().await;
    }
    Ok(builder.name)
}

/// Whether anybody could have changed a database since it was built.
#[derive(Debug, PartialEq, Eq)]
enum Seal {
    Open,
    Closed,
}

struct Builder<'a> {
    client: Client,
    target: ConnectTarget,
    namespace: &'a Namespace,
    name: DbName,
}

impl Builder<'_> {
    async fn look(&self, database: &DbName) -> Result<Option<Seal>, MigrateError> {
        let row = self
            .client
            .query_opt(
                "SELECT datistemplate AND NOT datallowconn FROM pg_database WHERE datname = $1",
                &[&database.as_str()],
            )
            .await
            .map_err(MigrateError::db("looking for the template", &self.target))?;
        Ok(row.map(|row| if row.get(0) { Seal::Closed } else { Seal::Open }))
    }

    async fn build(&self) -> Result<(), MigrateError> {
        let started = Instant::now();
        let building = self.namespace.template_under_construction();
        // A template that was opened by hand may have been changed: it is not trusted, and made anew.
        for leftover in [&building, &self.name] {
            if self.look(leftover).await?.is_some() {
                tracing::warn!(
                    database = leftover.as_str(),
                    "dropping a template that is not whole"
                );
                self.drop(leftover).await?;
            }
        }
        create_database(&self.client, &building, "template0", "ENCODING 'UTF8'").await?;
        // Everybody may connect to a new database, and a REVOKE ends nobody's session: so it is made closed,
        // and opened in the transaction that takes PUBLIC's rights.
        self.run(
            "opening the template to its builder",
            &format!(
                "REVOKE ALL ON DATABASE {building} FROM PUBLIC; ALTER DATABASE {building} WITH ALLOW_CONNECTIONS true"
            ),
        )
        .await?;
        migrate(&self.target.with_database(building.as_str()), None).await?;
        self.run(
            "sealing the template",
            &format!("ALTER DATABASE {building} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true"),
        )
        .await?;
        await_empty(&self.client, &building)
            .await
            .map_err(MigrateError::db("sealing the template", &self.target))?;
        self.run(
            "naming the template",
            &format!("ALTER DATABASE {building} RENAME TO {}", self.name),
        )
        .await?;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(template = self.name.as_str(), took_ms, "template built");
        Ok(())
    }

    async fn drop(&self, database: &DbName) -> Result<(), MigrateError> {
        let doing = "dropping an unfinished or superseded template";
        self.run(
            doing,
            &format!("ALTER DATABASE {database} WITH IS_TEMPLATE false"),
        )
        .await?;
        // FORCE: the backend of a builder that was killed may still run its last statement in there.
        self.run(doing, &format!("DROP DATABASE {database} WITH (FORCE)"))
            .await
    }

    /// Drops what this template replaces. A failure costs disk space only, and the next build tries again.
    async fn drop_superseded(&self) {
        let superseded = match self.superseded().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "superseded templates could not be listed");
                return;
            }
        };
        for name in superseded {
            match self.drop(&name).await {
                Ok(()) => tracing::info!(template = name.as_str(), "superseded template dropped"),
                Err(error) => {
                    tracing::warn!(template = name.as_str(), %error, "superseded template stays for now")
                }
            }
        }
    }

    async fn superseded(&self) -> Result<Vec<DbName>, MigrateError> {
        let prefix = format!("{}_template_v", self.namespace.as_str());
        let rows = self
            .client
            .query(
                "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)",
                &[&prefix],
            )
            .await
            .map_err(MigrateError::db("listing templates", &self.target))?;
        Ok(rows
            .iter()
            .map(|row| row.get::<_, String>(0))
            .filter(|name| name != self.name.as_str())
            .filter(|name| {
                let version = name[prefix.len()..]
                    .split('_')
                    .next()
                    .and_then(|v| v.parse::<u32>().ok());
                version.is_some_and(|version| version <= source::latest().number())
            })
            .filter_map(|name| DbName::from_catalog(name).ok())
            .collect())
    }

    async fn run(&self, doing: &'static str, sql: &str) -> Result<(), MigrateError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(MigrateError::db(doing, &self.target))
    }
}

/// Our own session's backend ends a moment after we close its connection; RENAME would look again only every
/// 100 ms. Gives whether nobody is left.
pub(crate) async fn await_empty(client: &Client, database: &DbName) -> Result<bool, tokio_postgres::Error> {
    let started = Instant::now();
    while started.elapsed() < BACKEND_GONE_LIMIT {
        let row = client
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1",
                &[&database.as_str()],
            )
            .await?;
        if row.get::<_, i64>(0) == 0 {
            return Ok(true);
        }
        tokio::time::sleep(BACKEND_GONE_PAUSE).await;
    }
    Ok(false)
}
