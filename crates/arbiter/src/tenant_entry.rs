use std::time::Duration;

use crate::{FAILURES_MAX, PoolHandle, Timestamp, frequency::Frequency, sync::Arc, wait_queue::Ticket};

/// What the arbiter knows of a tenant that holds a slot or waits for one.
pub(crate) struct TenantEntry<P> {
    /// The pool that is open now, if any. Connections of closed pools count in the other fields all the same.
    pub(crate) pool: Option<Arc<P>>,
    /// Slots of the tenant: connects under way, open connections, and closing connections.
    pub(crate) held: usize,
    pub(crate) connecting: usize,
    /// The connect under way is for a pool that has closed since.
    pub(crate) connecting_for_closed_pool: bool,
    pub(crate) closing: usize,
    /// Slots of failed connects whose backends are not known to be gone. They are in none of the other
    /// numbers.
    pub(crate) stuck: usize,
    /// When the newest connection was made.
    pub(crate) grown_at: Timestamp,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) frequency: Frequency,
}

impl<P: PoolHandle> TenantEntry<P> {
    pub(crate) fn new(frequency: Frequency) -> Self {
        Self {
            pool: None,
            held: 0,
            connecting: 0,
            connecting_for_closed_pool: false,
            closing: 0,
            stuck: 0,
            grown_at: Timestamp::ZERO,
            ticket: None,
            frequency,
        }
    }

    /// Connections that are not closing, and the connect under way.
    pub(crate) fn live(&self) -> usize {
        self.held - self.closing
    }

    /// Counts the end of a connect. Returns true if it was for a pool that has closed since, so that the
    /// present pool still needs its own connect.
    pub(crate) fn connect_ended(&mut self) -> bool {
        self.connecting -= 1;
        std::mem::take(&mut self.connecting_for_closed_pool)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0 && self.stuck == 0 && self.ticket.is_none()
    }

    pub(crate) fn is_open_pool(&self, pool: &Arc<P>) -> bool {
        self.pool.as_ref().is_some_and(|known| Arc::ptr_eq(known, pool))
    }

    /// Since when callers have been waiting for the open pool. The callers of a closed pool are about to
    /// leave it, and do not count.
    pub(crate) fn waiting_since(&self) -> Option<Timestamp> {
        let pool = self.pool.as_ref().filter(|pool| !pool.is_closed())?;
        pool.waiting_since()
    }

    /// Whether the tenant's bound allows another connect. Failed connects may exceed the bound by as many as
    /// it takes to find out that a server does not answer. A tenant whose log-ins hang while others' succeed
    /// gets no further.
    fn has_room(&self, pool: &P) -> bool {
        let max = pool.slots_max();
        self.held < max && self.held + self.stuck < max + FAILURES_MAX as usize
    }

    /// Whether the tenant should be in the queue and is not. Only one connect of a tenant runs at a time: the
    /// connection that it brings may be all that the tenant needs.
    pub(crate) fn needs_ticket(&self) -> bool {
        self.ticket.is_none()
            && self.connecting == 0
            && self.pool.as_ref().is_some_and(|pool| self.has_room(pool))
            && self.waiting_since().is_some()
    }

    /// How long callers have been waiting without a break since the tenant's newest connection was made.
    /// Before that moment, the connection had no chance to serve them.
    pub(crate) fn waited(&self, now: Timestamp) -> Option<Duration> {
        let since = self.waiting_since()?;
        Some(now.since(since.max(self.grown_at)))
    }
}
