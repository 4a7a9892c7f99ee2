//! The line of those who wait for a slot: fewest connections first, then who came first.

use std::collections::BTreeMap;

/// A place in the line. The first is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    live: usize,
    turn: u64,
}

#[derive(Debug)]
pub(crate) struct Line<K> {
    places: BTreeMap<Place, K>,
    turns: u64,
}

impl<K: Copy> Line<K> {
    pub(crate) fn new() -> Self {
        Self {
            places: BTreeMap::new(),
            turns: 0,
        }
    }

    /// Behind everybody who has as few connections.
    pub(crate) fn join(&mut self, live: usize, tenant: K) -> Place {
        self.turns += 1;
        let place = Place {
            live,
            turn: self.turns,
        };
        self.places.insert(place, tenant);
        place
    }

    pub(crate) fn leave(&mut self, place: Place) {
        self.places.remove(&place);
    }

    /// The tenant has another number of connections now; its turn stays.
    pub(crate) fn shift(&mut self, place: &mut Place, live: usize) {
        if place.live != live
            && let Some(tenant) = self.places.remove(place)
        {
            place.live = live;
            self.places.insert(*place, tenant);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        self.places.values().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
