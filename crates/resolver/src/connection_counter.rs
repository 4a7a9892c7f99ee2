//! Counts the connections of each tenant in this process, from before the connect until the socket is closed,
//! whatever becomes of their pool. When a deadpool closes, it forgets the connections that are checked out; a
//! drain must not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::TenantId;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Bounded by the number of connections: a tenant without one has no entry.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounter {
    live: Mutex<HashMap<TenantId, usize>>,
    ended: Notify,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    connection_counter: Arc<ConnectionCounter>,
    tenant: TenantId,
}

impl ConnectionCounter {
    pub(crate) fn count_connection(self: &Arc<Self>, tenant: TenantId) -> CountedConnection {
        *self.lock().entry(tenant).or_insert(0) += 1;
        CountedConnection {
            connection_counter: Arc::clone(self),
            tenant,
        }
    }

    pub(crate) fn of(&self, tenant: TenantId) -> usize {
        self.lock().get(&tenant).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> usize {
        self.lock().values().sum()
    }

    /// Waits until `left` returns zero. At `deadline`, returns what `left` returns then.
    pub(crate) async fn wait_for_none(
        &self,
        deadline: Instant,
        left: impl Fn(&Self) -> usize,
    ) -> Result<(), usize> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Subscribes before reading the count, so that it misses no connection that ends in between.
            ended.as_mut().enable();
            let now = left(self);
            if now == 0 {
                return Ok(());
            }
            if timeout_at(deadline, ended).await.is_err() {
                let last = left(self);
                return if last == 0 { Ok(()) } else { Err(last) };
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut live = self.connection_counter.lock();
        if let Some(count) = live.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.tenant);
            }
        }
        drop(live);
        self.connection_counter.ended.notify_waiters();
    }
}
