//! Load: clients that send the next request when the last one is answered (closed loop), and requests that
//! arrive by the clock, whether earlier ones are answered or not (open loop).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    measure::Tally,
    peers::{Failure, Peer, Work},
};

/// How long requests under way at the end may go on. A request that is unanswered then counts with the time
/// it has waited.
const GRACE: Duration = Duration::from_secs(20);
/// After an error a client pauses, as real ones do. Otherwise a side that fails fast would get requests
/// without end.
const BREATH: Duration = Duration::from_millis(1);

/// One caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) tenant: usize,
    pub(crate) work: Work,
    /// How long it thinks between two requests.
    pub(crate) think: Duration,
}

#[derive(Default)]
struct Cell {
    tally: Tally,
    asked: Option<Instant>,
}

/// Runs the clients for `warm`, which does not count, and then for `slice`. One tally for each client.
pub(crate) async fn closed(
    peer: &Arc<dyn Peer>,
    clients: &[Client],
    warm: Duration,
    slice: Duration,
) -> Vec<Tally> {
    let begin = Instant::now() + warm;
    let end = begin + slice;
    let cells: Vec<Arc<Mutex<Cell>>> = clients.iter().map(|_| Arc::default()).collect();
    let mut tasks = JoinSet::new();
    for (client, cell) in clients.iter().zip(&cells) {
        tasks.spawn(ask(Arc::clone(peer), *client, Arc::clone(cell), begin, end));
    }
    let mut panics = 0;
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            panics += u64::from(ended.is_err());
        }
    };
    let _ = timeout_at(end + GRACE, all).await;
    tasks.shutdown().await;
    let mut tallies: Vec<Tally> = cells
        .into_iter()
        .map(|cell| {
            let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(asked) = cell.asked.take() {
                cell.tally.wait(asked.elapsed());
                cell.tally.fail(&Failure::new("unanswered"));
            }
            std::mem::take(&mut cell.tally)
        })
        .collect();
    if let Some(first) = tallies.first_mut() {
        first.note_panics(panics);
    }
    tallies
}

async fn ask(peer: Arc<dyn Peer>, client: Client, cell: Arc<Mutex<Cell>>, begin: Instant, end: Instant) {
    let lock = || cell.lock().unwrap_or_else(PoisonError::into_inner);
    if !client.think.is_zero() {
        // So that the clients do not run in step.
        sleep(client.think.mul_f64(rand::random::<f64>())).await;
    }
    loop {
        let asked = Instant::now();
        if asked >= end {
            return;
        }
        lock().asked = Some(asked);
        let answer = peer.request(client.tenant, client.work).await;
        let now = Instant::now();
        {
            let mut cell = lock();
            cell.asked = None;
            // A request that was sent during the warm-up counts if it ends later: its caller waited in the
            // slice.
            if now >= begin {
                cell.tally.wait(now - asked);
                match &answer {
                    Ok(()) => cell.tally.done += u64::from(now < end),
                    Err(failure) => cell.tally.fail(failure),
                }
            }
        }
        if answer.is_err() {
            sleep(BREATH).await;
        }
        if !client.think.is_zero() {
            sleep(client.think).await;
        }
    }
}

/// Sends `rate` requests a second for `length`, each for the tenant that `pick` returns, with at most
/// `workers` under way. A wait counts from the moment at which its request was due. Requests that are still
/// due at the end are dropped.
pub(crate) async fn open(
    peer: &Arc<dyn Peer>,
    pick: impl Fn() -> usize + Clone + Send + 'static,
    workers: usize,
    rate: f64,
    length: Duration,
) -> Tally {
    let begin = Instant::now();
    let end = begin + length;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (peer, pick, next) = (Arc::clone(peer), pick.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Relaxed);
                let due = begin + Duration::from_secs_f64(crate::measure::total(number) / rate);
                if due >= end {
                    return tally;
                }
                sleep_until(due).await;
                if Instant::now() >= end {
                    return tally;
                }
                let answer = timeout_at(end + GRACE, peer.request(pick(), Work::Point)).await;
                let now = Instant::now();
                tally.wait(now - due);
                match answer {
                    Ok(Ok(())) => tally.done += u64::from(now < end),
                    Ok(Err(failure)) => {
                        tally.fail(&failure);
                        sleep(BREATH).await;
                    }
                    Err(_) => tally.fail(&Failure::new("unanswered")),
                }
            }
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        match tally {
            Ok(tally) => all.add(&tally),
            Err(_) => all.note_panics(1),
        }
    }
    all
}
