//! Keeping databases ready: each worker looks now and then, and whenever a spare was taken, whether every
//! server has as many as it should, and clones what is missing. One process at a time on each server, one
//! clone at a time: copies beside each other slow each other down, and the laboratories' own work with them.

use std::time::Duration;

use registry::Server;

use crate::{Inner, ProvisionError, Provisioner, server::AdminSession};

/// How soon to look again after what could not be done: what a server's crash has left half made should not
/// lie about.
const PUT_OFF: Duration = Duration::from_secs(2);

/// What stocking one server came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stocked {
    /// How many were cloned.
    pub made: usize,
    /// How many of a schema that is past, or never finished, were dropped.
    pub dropped: usize,
    /// How many are ready now.
    pub ready: usize,
    /// On how many servers it could not be done now: they cannot be reached, or somebody else is at it.
    pub put_off: usize,
}

/// Stocks until it is aborted.
pub(crate) async fn stock(inner: &Inner) {
    loop {
        let done = if inner.config.bounds.spares > 0 {
            all(inner).await
        } else {
            Ok(Stocked::default())
        };
        let pause = match done {
            Ok(done) if done.put_off == 0 => inner.config.bounds.spares_every,
            Ok(_) => PUT_OFF,
            Err(error) => {
                tracing::warn!(%error, "spares cannot be looked after; trying again");
                PUT_OFF
            }
        };
        tokio::select! {
            () = inner.spare_taken.notified() => {}
            () = tokio::time::sleep(pause.min(inner.config.bounds.spares_every)) => {}
        }
    }
}

async fn all(inner: &Inner) -> Result<Stocked, ProvisionError> {
    let servers = registry::servers_list(&inner.config.registry.client().await?).await?;
    let mut sum = Stocked::default();
    for server in servers {
        let name = server.name.clone();
        match one_server(inner, server).await {
            Ok(one) => {
                sum.made += one.made;
                sum.dropped += one.dropped;
                sum.ready += one.ready;
                sum.put_off += one.put_off;
            }
            Err(error) => {
                sum.put_off += 1;
                tracing::warn!(server = %name, %error, "this server's spares cannot be looked after; trying \
                                                        again")
            }
        }
    }
    Ok(sum)
}

impl Provisioner {
    /// Looks once whether every server has as many spares as configured, clones what is missing and drops
    /// those of a schema that is past, as after a migration. Workers do it by themselves.
    ///
    /// # Errors
    /// When the registry cannot be asked; a server that cannot be reached is logged and passed over.
    pub async fn stock(&self) -> Result<Stocked, ProvisionError> {
        all(&self.inner).await
    }
}

async fn one_server(inner: &Inner, server: Server) -> Result<Stocked, ProvisionError> {
    let session = inner.session(inner.admin_of(server)?).await?;
    let done = under_lock(inner, &session).await;
    // Unlocks too.
    inner.keep(session).await;
    done
}

async fn under_lock(inner: &Inner, session: &AdminSession) -> Result<Stocked, ProvisionError> {
    let namespace = &inner.config.namespace;
    let mut done = Stocked::default();
    if !migrator::spares_lock(&session.client, namespace).await? {
        // Who is at it may die before it is done.
        done.put_off = 1;
        return Ok(done);
    }
    let template = match migrator::template_find(&*session.client, namespace).await? {
        Some(template) => template,
        None => migrator::template_ensure(&session.target, namespace).await?,
    };
    let found = migrator::spares_list(&*session.client, namespace).await?;
    for stale in found.stale.iter().chain(&found.unfinished) {
        match migrator::spare_drop(&session.client, stale).await {
            Ok(()) => done.dropped += 1,
            // Its maker's session may end only now. The next look tries again.
            Err(error) => {
                tracing::warn!(spare = stale.as_str(), %error, "a spare that nobody wants stays for now")
            }
        }
    }
    migrator::spare_groups_tidy(&session.client, namespace).await?;
    done.ready = found.ready.len();
    // Each is counted anew, since others take them meanwhile; the bound keeps two that take and make from
    // going on for ever.
    for _ in 0..inner.config.bounds.spares {
        if done.ready >= inner.config.bounds.spares {
            break;
        }
        let number = rand::random();
        migrator::spare_make(&session.client, &session.target, namespace, &template, number).await?;
        done.made += 1;
        done.ready = migrator::spares_list(&*session.client, namespace)
            .await?
            .ready
            .len();
    }
    if done.made + done.dropped > 0 {
        tracing::debug!(server = %session.target, made = done.made, dropped = done.dropped, ready = done.ready, "spares looked after");
    }
    Ok(done)
}
