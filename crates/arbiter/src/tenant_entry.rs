use std::time::Duration;

use crate::{FAILURES_MAX, PoolHandle, Timestamp, frequency::Frequency, sync::Arc, wait_queue::Ticket};

/// What the state knows of a tenant that holds a slot or stands in the line.
pub(crate) struct TenantEntry<P> {
    /// The pool that is open now, if any; connections of closed ones count all the same.
    pub(crate) pool: Option<Arc<P>>,
    /// Slots: connects under way, connections, and those that are ending.
    pub(crate) held: usize,
    pub(crate) connecting: usize,
    /// The connect under way is for a pool that has left since.
    pub(crate) connecting_for_closed_pool: bool,
    pub(crate) closing: usize,
    /// Slots of connects that failed, whose backends are not known to be gone. They are in none of the other numbers.
    pub(crate) stuck: usize,
    /// When its latest connection came.
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

    /// Connections that are not about to end, and the one under way.
    pub(crate) fn live(&self) -> usize {
        self.held - self.closing
    }

    /// A connect is over. True: it was for a pool that has left, so the present one still needs its own.
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

    /// Since when its callers wait. Those of a pool that is being closed are on their way out.
    pub(crate) fn waiting_since(&self) -> Option<Timestamp> {
        let pool = self.pool.as_ref().filter(|pool| !pool.is_closed())?;
        pool.waiting_since()
    }

    /// Whether its bound allows another connect. Those that failed may exceed it by as many as it takes to find out that a
    /// server does not answer; a tenant whose log-ins hang while others' do not gets no further than that.
    fn has_room(&self, pool: &P) -> bool {
        let max = pool.slots_max();
        self.held < max && self.held + self.stuck < max + FAILURES_MAX as usize
    }

    /// Whether it should stand in the line and does not. One connect at a time: the connection that it brings may be all
    /// that is needed.
    pub(crate) fn needs_ticket(&self) -> bool {
        self.ticket.is_none()
            && self.connecting == 0
            && self.pool.as_ref().is_some_and(|pool| self.has_room(pool))
            && self.waiting_since().is_some()
    }

    /// For how long its callers have waited without a break for a further connection. One that has just come has not had the
    /// time to serve them.
    pub(crate) fn waited(&self, now: Timestamp) -> Option<Duration> {
        let since = self.waiting_since()?;
        Some(now.since(since.max(self.grown_at)))
    }
}
