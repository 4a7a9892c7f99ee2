//! The line of those who wait for a slot: fewest connections first, then who came first.

use std::collections::BTreeMap;

/// A place in the line. The first is the least.
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

    /// Behind everybody who has as few connections.
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

    /// The tenant has another number of connections now; its turn stays.
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
