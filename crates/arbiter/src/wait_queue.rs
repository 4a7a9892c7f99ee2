//! The queue of tenants that wait for a slot: the tenant with the fewest connections first, then first come,
//! first served.

use std::collections::BTreeMap;

/// A tenant's position in the queue. The least ticket is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    live: usize,
    number: u64,
}

#[derive(Debug)]
pub(crate) struct WaitQueue<K> {
    tickets: BTreeMap<Ticket, K>,
    last_number: u64,
}

impl<K: Copy> WaitQueue<K> {
    pub(crate) fn new() -> Self {
        Self {
            tickets: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// Adds the tenant after all that have as few connections.
    pub(crate) fn push(&mut self, live: usize, tenant: K) -> Ticket {
        self.last_number += 1;
        let ticket = Ticket {
            live,
            number: self.last_number,
        };
        self.tickets.insert(ticket, tenant);
        ticket
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket);
    }

    /// Moves the tenant to where its new number of connections belongs. Its ticket keeps its number.
    pub(crate) fn reposition(&mut self, ticket: &mut Ticket, live: usize) {
        if ticket.live != live
            && let Some(tenant) = self.tickets.remove(ticket)
        {
            ticket.live = live;
            self.tickets.insert(*ticket, tenant);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        self.tickets.values().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }
}
