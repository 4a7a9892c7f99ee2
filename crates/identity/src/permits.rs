//! Who hashes next: a bounded number of permits, each with the memory that one Argon2 computation fills.
//!
//! Permits go out in turn: round robin over the lanes in which a caller waits, within a lane round robin
//! over its clients, and first come, first served within one client. So a client that floods the log-in waits
//! behind itself, and an operator, or a client that has logged in before, is at most a few computations away
//! from its turn.
//!
//! Invariants: no more computations run at once than there are permits; a free permit means that no caller
//! waits; every queue and every wait is bounded. The memory of a permit is allocated once and used again,
//! because an allocator that gets blocks of 19 MiB back from many threads keeps them: 0.7 to 1.1 GB were
//! retained after a few hundred log-ins.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use argon2::Block;
use tokio::sync::oneshot;

/// The most callers of one client that wait in one lane.
const WAITING_PER_CLIENT_MAX: usize = 128;
/// The most callers that wait in one lane.
const WAITING_PER_LANE_MAX: usize = 1_024;

/// The queue in which a caller waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Work for a caller that has proved who it is.
    Authenticated,
    /// An operator's log-in from where that operator has logged in before.
    KnownOperator,
    /// A log-in to an operator's account from elsewhere.
    Operator,
    /// A log-in to a laboratory from where that person has logged in before.
    KnownStaff,
    /// A log-in to a laboratory from elsewhere.
    Staff,
}

const LANES: usize = 5;

/// For whom a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// The queue to wait in.
    pub lane: Lane,
    /// The client within it: any number that stands for it.
    pub client: u64,
}

impl Requester {
    /// A caller that needs no share of its own.
    pub(crate) const AUTHENTICATED: Self = Self {
        lane: Lane::Authenticated,
        client: 0,
    };
}

/// Why there was no permit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The wait was over.
    Late,
    /// Too many callers wait in the lane.
    LaneFull,
    /// Too many callers of the same client wait.
    ClientFull,
}

/// The permits. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Permits(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// The memory of the free permits that have been used before.
    memory: Vec<Vec<Block>>,
    lanes: [Queue; LANES],
    /// The lane that is asked first.
    next: usize,
    /// How many permits were given out since the start.
    given: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// The clients with a caller waiting, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: HashMap<u64, VecDeque<oneshot::Sender<Permit>>>,
    count: usize,
}

/// The right to run one computation. It goes to the next caller when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once there is nothing to give back.
    permits: Option<Permits>,
    /// Empty until the first computation.
    pub(crate) memory: Vec<Block>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.permits.take() {
            permits.give_back(std::mem::take(&mut self.memory));
        }
    }
}

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: count.max(1),
            memory: Vec::new(),
            lanes: Default::default(),
            next: 0,
            given: 0,
        })))
    }

    /// A permit when it is the requester's turn.
    pub(crate) async fn acquire(&self, requester: Requester, wait_max: Duration) -> Result<Permit, NoPermit> {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                state.given += 1;
                let memory = state.memory.pop().unwrap_or_default();
                return Ok(self.permit(memory));
            }
            state.lanes[requester.lane as usize].push(requester.client)?
        };
        match tokio::time::timeout(wait_max, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(NoPermit::Late),
        }
    }

    /// How many permits were given out since the start.
    pub(crate) fn given(&self) -> u64 {
        self.state().given
    }

    /// How many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state().lanes.iter().map(|lane| lane.count).sum()
    }

    fn permit(&self, memory: Vec<Block>) -> Permit {
        Permit {
            permits: Some(self.clone()),
            memory,
        }
    }

    /// Hands a permit to the caller whose turn it is, or keeps it.
    fn give_back(&self, memory: Vec<Block>) {
        let mut state = self.state();
        let mut permit = self.permit(memory);
        while let Some(caller) = state.next_caller() {
            match caller.send(permit) {
                Ok(()) => {
                    state.given += 1;
                    return;
                }
                // The caller has given up.
                Err(returned) => permit = returned,
            }
        }
        state.free += 1;
        let memory = std::mem::take(&mut permit.memory);
        if !memory.is_empty() {
            state.memory.push(memory);
        }
        permit.permits = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_caller(&mut self) -> Option<oneshot::Sender<Permit>> {
        for step in 0..LANES {
            let lane = (self.next + step) % LANES;
            if let Some(caller) = self.lanes[lane].pop() {
                self.next = (lane + 1) % LANES;
                return Some(caller);
            }
        }
        None
    }
}

impl Queue {
    fn push(&mut self, client: u64) -> Result<oneshot::Receiver<Permit>, NoPermit> {
        if self.count >= WAITING_PER_LANE_MAX || self.length(client) >= WAITING_PER_CLIENT_MAX {
            self.remove_abandoned();
        }
        if self.length(client) >= WAITING_PER_CLIENT_MAX {
            return Err(NoPermit::ClientFull);
        }
        if self.count >= WAITING_PER_LANE_MAX {
            return Err(NoPermit::LaneFull);
        }
        let (sender, receiver) = oneshot::channel();
        let callers = self.waiting.entry(client).or_default();
        if callers.is_empty() {
            self.turns.push_back(client);
        }
        callers.push_back(sender);
        self.count += 1;
        Ok(receiver)
    }

    fn length(&self, client: u64) -> usize {
        self.waiting.get(&client).map_or(0, VecDeque::len)
    }

    /// Removes the callers that have given up.
    fn remove_abandoned(&mut self) {
        self.waiting.retain(|_, callers| {
            callers.retain(|caller| !caller.is_closed());
            !callers.is_empty()
        });
        self.turns.retain(|client| self.waiting.contains_key(client));
        self.count = self.waiting.values().map(VecDeque::len).sum();
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let client = self.turns.pop_front()?;
        let callers = self.waiting.get_mut(&client)?;
        let caller = callers.pop_front();
        if callers.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.count -= usize::from(caller.is_some());
        caller
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    type Waiting = Pin<Box<dyn Future<Output = Result<Permit, NoPermit>>>>;

    /// Asks, and is in the queue from here on.
    fn ask(permits: &Permits, lane: Lane, client: u64) -> Waiting {
        let permits = permits.clone();
        let mut waiting: Waiting =
            Box::pin(async move { permits.acquire(Requester { lane, client }, LONG).await });
        assert!((&mut waiting).now_or_never().is_none(), "no permit is free");
        waiting
    }

    /// In which order the callers get the one permit.
    fn order(mut held: Permit, mut waiting: Vec<(&'static str, Waiting)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let mut callers = waiting.iter_mut().enumerate();
            let found = callers.find_map(|(at, (_, one))| Some((at, one.now_or_never()?)));
            let (at, permit) = found.expect("a permit that is given back goes to a caller");
            held = permit.unwrap();
            order.push(waiting.remove(at).0);
        }
        order
    }

    #[tokio::test]
    async fn a_client_that_floods_waits_behind_itself() {
        let permits = Permits::new(1);
        let held = permits.acquire(Requester::AUTHENTICATED, LONG).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..4 {
            waiting.push(("flood", ask(&permits, Lane::Staff, 1)));
        }
        waiting.push(("other", ask(&permits, Lane::Staff, 2)));
        waiting.push(("known", ask(&permits, Lane::KnownStaff, 1)));
        waiting.push(("operator", ask(&permits, Lane::Operator, 1)));
        assert_eq!(permits.waiting(), 7);
        let order = order(held, waiting);
        let at = |who| order.iter().position(|one| *one == who).unwrap();
        assert!(
            at("other") <= 4 && at("known") <= 3 && at("operator") <= 3,
            "{order:?}"
        );
        assert_eq!(order[5..], ["flood"; 2]);
    }

    #[tokio::test]
    async fn a_caller_that_gave_up_takes_no_permit_and_its_memory_is_used_again() {
        let permits = Permits::new(1);
        let mut held = permits.acquire(Requester::AUTHENTICATED, LONG).await.unwrap();
        held.memory = vec![Block::new(); 8];
        drop(ask(&permits, Lane::Staff, 1));
        let mut stays = ask(&permits, Lane::Staff, 1);
        drop(held);
        let held = (&mut stays).now_or_never().expect("its turn").unwrap();
        assert_eq!(held.memory.len(), 8);
        drop(held);
        let again = permits.acquire(Requester::AUTHENTICATED, LONG).await.unwrap();
        assert_eq!((again.memory.len(), permits.given()), (8, 3));
    }

    #[tokio::test]
    async fn queues_are_bounded_for_each_client_and_for_all() {
        let permits = Permits::new(1);
        let _held = permits.acquire(Requester::AUTHENTICATED, LONG).await.unwrap();
        let staff = |client| Requester {
            lane: Lane::Staff,
            client,
        };
        let mut waiting: Vec<_> = (0..WAITING_PER_CLIENT_MAX)
            .map(|_| ask(&permits, Lane::Staff, 0))
            .collect();
        let refused = permits.acquire(staff(0), LONG).await.unwrap_err();
        assert_eq!(refused, NoPermit::ClientFull);
        // A caller that has given up makes room.
        waiting.pop();
        waiting.push(ask(&permits, Lane::Staff, 0));
        let more = WAITING_PER_LANE_MAX - WAITING_PER_CLIENT_MAX;
        waiting.extend((1..).take(more).map(|client| ask(&permits, Lane::Staff, client)));
        let refused = permits.acquire(staff(u64::MAX), LONG).await.unwrap_err();
        assert_eq!(refused, NoPermit::LaneFull);
        waiting.push(ask(&permits, Lane::Operator, 0));
    }
}
