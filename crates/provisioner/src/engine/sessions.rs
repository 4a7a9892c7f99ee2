//! The session in which a step works on a server.
//!
//! It holds an advisory lock of the laboratory's own. A worker that lost its lease while a statement was
//! under way (a `CREATE DATABASE`, say) leaves a backend that goes on for a while; its successor ends that
//! backend and only then begins. The lease is the right to work, this lock makes sure that nobody else still
//! does.

use std::time::{Duration, Instant};

use model::{DbName, OperationKind, ServerName, TenantId};
use registry::Tenant;
use sha2::{Digest, Sha256};
use tokio::sync::{MappedMutexGuard, MutexGuard};
use tokio_postgres::{Client, types::Type};

use crate::{
    ProvisionError,
    engine::Context,
    error::StepError,
    server::{AdminSession, require_own},
};

/// How long a predecessor's session may take to end by itself.
const PREDECESSOR_GRACE: Duration = Duration::from_secs(1);
/// How long it may take once it was asked to.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Context<'_> {
    /// A session on the maintenance database of the laboratory's server, alone in its right to work on it.
    pub(crate) async fn maintenance(&self, tenant: &Tenant) -> Result<AdminSession, StepError> {
        self.maintenance_on(&tenant.server, tenant.id).await
    }

    /// The same for a laboratory that may be gone.
    pub(crate) async fn maintenance_on(
        &self,
        server: &ServerName,
        tenant: TenantId,
    ) -> Result<AdminSession, StepError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = &*kept
            && !session.client.is_closed()
        {
            return Ok(session.clone());
        }
        let target = self.inner.admin_on(server).await?;
        let session = self.inner.session(target).await?;
        lock(&session, tenant).await?;
        *kept = Some(session.clone());
        Ok(session)
    }

    /// A session on the laboratory's own database as the administrator, kept from step to step like the
    /// other. Only for operations that do not drop it. A database without the laboratory's ownership comment
    /// is not entered; an adoption, which gives it the ownership comment, looks for itself.
    pub(crate) async fn inside(&self, tenant: &Tenant) -> Result<MappedMutexGuard<'_, Client>, StepError> {
        let mut kept = self.inside.lock().await;
        if kept.as_ref().is_none_or(Client::is_closed) {
            if self.operation.kind != OperationKind::Adopt {
                require_own(&self.maintenance(tenant).await?, tenant).await?;
            }
            let target = self.inner.admin(tenant).await?;
            let target = target.with_database(tenant.db_name.as_str());
            *kept = Some(self.inner.connect_inside(&target).await?);
        }
        session_in(kept, tenant)
    }

    /// A session of the laboratory's own role with its stored password, kept from step to step.
    pub(crate) async fn own(&self, tenant: &Tenant) -> Result<MappedMutexGuard<'_, Client>, StepError> {
        let mut kept = self.own.lock().await;
        if kept.as_ref().is_none_or(Client::is_closed) {
            let target = self.own_target(tenant).await?;
            *kept = Some(self.inner.connect(&target).await?);
        }
        session_in(kept, tenant)
    }

    /// Done with the server: what others can use goes on.
    pub(crate) async fn close(self) {
        let session = self.session.lock().await.take();
        if let Some(session) = session {
            self.inner.keep(session).await;
        }
    }

    /// The template, found on a session that we have anyway, or built.
    pub(crate) async fn template(&self, session: &AdminSession) -> Result<DbName, ProvisionError> {
        let namespace = &self.inner.config.namespace;
        match migrator::template_find(&*session.client, namespace).await? {
            Some(found) => Ok(found),
            None => Ok(migrator::template_ensure(&session.target, namespace).await?),
        }
    }
}

fn session_in<'a>(
    kept: MutexGuard<'a, Option<Client>>,
    tenant: &Tenant,
) -> Result<MappedMutexGuard<'a, Client>, StepError> {
    MutexGuard::try_map(kept, Option::as_mut).map_err(|_| {
        StepError::retry(ProvisionError::Missing {
            what: "session on",
            name: tenant.db_name.as_str().to_owned(),
            server: "its server".to_owned(),
        })
    })
}

fn lock_key(tenant: TenantId) -> i64 {
    let digest: [u8; 32] = Sha256::digest(format!("tenantry laboratory {tenant}")).into();
    digest[..8]
        .iter()
        .fold(0, |key, &byte| (key << 8) | i64::from(byte))
}

async fn lock(session: &AdminSession, tenant: TenantId) -> Result<(), StepError> {
    let key = lock_key(tenant);
    let failed = || ProvisionError::db("taking the laboratory's lock", &session.target);
    let began = Instant::now();
    let mut told_to_end = false;
    loop {
        let row = session
            .client
            .query_typed_one("SELECT pg_try_advisory_lock($1)", &[(&key, Type::INT8)])
            .await
            .map_err(failed())?;
        if row.get(0) {
            return Ok(());
        }
        let waited = began.elapsed();
        if waited > PREDECESSOR_GRACE + PREDECESSOR_LIMIT {
            let server = session.target.to_string();
            return Err(StepError::retry(ProvisionError::Busy { server, waited }));
        }
        if waited > PREDECESSOR_GRACE && !told_to_end {
            told_to_end = true;
            let ended = session
                .client
                .execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks
                      WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND (classid::bigint << 32) | objid::bigint = $1",
                    &[&key],
                )
                .await
                .map_err(failed())?;
            tracing::warn!(tenant.id = %tenant, ended, "ended the session of a worker that lost its lease");
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
