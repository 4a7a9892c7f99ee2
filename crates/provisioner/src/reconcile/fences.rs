//! Comparing what servers say with what the registry says, and fixing the servers.
//!
//! A suspension is committed in the registry first and told to the laboratory's server last. When the process
//! dies in between, or the server is away, a laboratory that does not serve has a role that can still log in.
//! No note is kept of that: each worker looks, at its start and every now and then, and what it finds it
//! closes. So it does not matter how it came about; a server that was restored from a backup is fixed the
//! same way.

use std::time::Duration;

use model::TenantState;
use registry::{Actor, PAGE_MAX, Server, Tenant, TenantFilter};

use crate::{
    Inner, ProvisionError,
    server::{AdminSession, ownership_comment},
};

/// How long a suspension may take to close the laboratory on its server after the routers' grace.
const SUSPENDING_MAX: Duration = Duration::from_secs(10);

/// Looks until it is aborted.
pub(crate) async fn reconcile_fences(inner: &Inner) {
    let every = inner.config.bounds.fences_every;
    loop {
        inner.idle_sessions.drop_old();
        if let Err(error) = all(inner).await {
            tracing::warn!(%error, "suspended laboratories cannot be looked through; trying again");
        }
        // Several workers need not look at the same moment.
        tokio::time::sleep(jittered(every)).await;
    }
}

fn jittered(every: Duration) -> Duration {
    every.mul_f64(rand::random_range(0.75..=1.25))
}

async fn all(inner: &Inner) -> Result<(), ProvisionError> {
    let servers = registry::servers_list(&inner.config.registry.client().await?).await?;
    for server in servers {
        let name = server.name.clone();
        if let Err(error) = one_server(inner, server).await {
            tracing::warn!(
                server = %name,
                %error,
                "it is not known whether suspended laboratories are closed on their server; trying again"
            );
        }
    }
    Ok(())
}

async fn one_server(inner: &Inner, server: Server) -> Result<(), ProvisionError> {
    let mut session = None;
    for &status in TenantState::CLOSED {
        let filter = TenantFilter {
            status: Some(status),
            server: Some(server.name.clone()),
            behind: None,
        };
        let mut after = None;
        loop {
            let client = inner.config.registry.client().await?;
            let page = registry::tenants_list(&client, &filter, after.as_ref(), PAGE_MAX).await?;
            drop(client);
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.slug.clone());
            // A server without closed laboratories is not bothered.
            let session = match &session {
                Some(session) => session,
                None => session.insert(inner.session(inner.admin_of(server.clone())?).await?),
            };
            for tenant in open(session, &page).await? {
                close(inner, tenant).await;
            }
        }
    }
    Ok(())
}

/// Those whose role can log in or is logged in. A role that is not marked as the laboratory's own is somebody
/// else's.
async fn open<'a>(session: &AdminSession, page: &'a [Tenant]) -> Result<Vec<&'a Tenant>, ProvisionError> {
    let roles: Vec<&str> = page.iter().map(|tenant| tenant.role_name.as_str()).collect();
    let comments: Vec<String> = page.iter().map(ownership_comment).collect();
    let rows = session
        .client
        .query(
            "SELECT wanted.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (role, comment, place)
               JOIN pg_roles AS r ON r.rolname = wanted.role::name
              WHERE shobj_description(r.oid, 'pg_authid') = wanted.comment
                AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.usesysid = r.oid))",
            &[&roles, &comments],
        )
        .await
        .map_err(ProvisionError::db(
            "looking for roles that can log in",
            &session.target,
        ))?;
    let at = |place: i64| page.get(usize::try_from(place - 1).ok()?);
    Ok(rows.iter().filter_map(|row| at(row.get(0))).collect())
}

/// Suspending and resuming go on meanwhile. What has changed since the page was read is somebody's who is at
/// it, or the next look's; what was suspended a moment ago is most likely being closed right now, so that it
/// was open is nothing to warn of.
async fn close(inner: &Inner, tenant: &Tenant) {
    let actor = Actor::Worker(inner.owner.clone());
    let settled = inner.config.bounds.routers_grace + SUSPENDING_MAX;
    let unchanged = async {
        let client = inner.config.registry.client().await?;
        registry::tenant_unchanged_for(&client, tenant.id, tenant.generation, settled).await
    };
    let overdue = match unchanged.await {
        Ok(Some(overdue)) => overdue,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(tenant.slug = %tenant.slug, %error, "a laboratory cannot be looked at again; trying again");
            return;
        }
    };
    match inner.close_on_server(tenant, &actor).await {
        Ok(()) if !overdue => tracing::info!(
            tenant.slug = %tenant.slug,
            server = %tenant.server,
            "a laboratory that was closed a moment ago is closed on its server, too"
        ),
        Ok(()) => tracing::warn!(
            tenant.slug = %tenant.slug,
            server = %tenant.server,
            "a laboratory that does not serve was open on its server; it is closed now"
        ),
        Err(error) => tracing::warn!(
            tenant.slug = %tenant.slug,
            server = %tenant.server,
            %error,
            "a laboratory that does not serve is open on its server and cannot be closed; trying again"
        ),
    }
}
