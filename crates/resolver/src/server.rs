//! One PostgreSQL server as this process sees it: its arbiter, its capacity, and its figures.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arbiter::{Arbiter, Rules};
use model::ServerName;
use registry::Budgets;
use tokio::{runtime::Handle, sync::Notify, time::sleep};

use crate::{Capacity, ResolverConfig, ServerStats, clock::Clock, jitter::jitter, pool::TenantPool};

/// How often the arbiter is called while time alone may free a slot.
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct Room {
    capacity: Option<Capacity>,
    overbooked: bool,
}

pub(crate) struct Server {
    pub(crate) name: ServerName,
    pub(crate) arbiter: Arc<Arbiter<TenantPool>>,
    /// Whether the capacity was compared with the budget.
    capacity_checked: AtomicBool,
    /// The capacity that the server reported, and whether the budgets of all routers exceed it.
    room: Mutex<Room>,
    /// Why the latest connect failed.
    last_failure: Mutex<String>,
    /// Host and port, as of the latest pool that was opened.
    address: Mutex<(String, u16)>,
    pub(crate) connects: AtomicU64,
    pub(crate) connect_errors: AtomicU64,
    pub(crate) connects_refused: AtomicU64,
}

impl Server {
    pub(crate) fn new(
        name: ServerName,
        config: &ResolverConfig,
        clock: Clock,
        runtime: &Handle,
    ) -> Arc<Self> {
        let rules = Rules {
            connects_max: config.connects_max,
            tenure: config.tenure,
            ..Rules::new(config.budget)
        };
        let stir = Arc::new(Notify::new());
        let wake = {
            let stir = Arc::clone(&stir);
            move || stir.notify_one()
        };
        let arbiter = Arc::new(Arbiter::new(rules, move || clock.now(), jitter, wake));
        // One timer for each server; it sleeps while no tenant waits.
        let timed = Arc::downgrade(&arbiter);
        runtime.spawn(async move {
            loop {
                stir.notified().await;
                loop {
                    sleep(TICK).await;
                    let Some(arbiter) = timed.upgrade() else { return };
                    if !arbiter.tick() {
                        break;
                    }
                }
            }
        });
        Arc::new(Self {
            name,
            arbiter,
            capacity_checked: AtomicBool::new(false),
            room: Mutex::default(),
            last_failure: Mutex::default(),
            address: Mutex::default(),
            connects: AtomicU64::new(0),
            connect_errors: AtomicU64::new(0),
            connects_refused: AtomicU64::new(0),
        })
    }

    /// Notes where the server is. If it has moved, its capacity is checked again, because it may have less
    /// room.
    pub(crate) fn is_at(&self, host: &str, port: u16) {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if (address.0.as_str(), address.1) != (host, port) {
            *address = (host.to_owned(), port);
            self.capacity_checked.store(false, SeqCst);
        }
    }

    pub(crate) fn is_capacity_checked(&self) -> bool {
        self.capacity_checked.load(SeqCst)
    }

    pub(crate) fn note_capacity(&self, capacity: Capacity, budgets: Budgets) {
        self.lock_room().capacity = Some(capacity);
        self.capacity_checked.store(true, SeqCst);
        self.compare(budgets);
    }

    /// Logs once when the budgets of all routers exceed the server's capacity, and once when they fit again.
    pub(crate) fn compare(&self, budgets: Budgets) {
        let mut room = self.lock_room();
        let Some(capacity) = room.capacity else { return };
        let compared = capacity.admit_all(&self.name, budgets);
        let before = std::mem::replace(&mut room.overbooked, compared.is_err());
        match compared {
            Err(overbooked) if !before => tracing::warn!(server = %self.name, "{overbooked}"),
            Ok(()) if before => {
                tracing::info!(server = %self.name, "the budgets of all routers fit the server again");
            }
            _ => {}
        }
    }

    fn lock_room(&self) -> std::sync::MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_failure(&self, reason: &str) {
        reason.clone_into(&mut self.last_failure.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A log-in has succeeded, so that the latest failure explains nothing any more.
    pub(crate) fn clear_failure(&self) {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn last_failure(&self) -> String {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn stats(&self) -> ServerStats {
        let stats = self.arbiter.stats();
        let room = self.lock_room();
        ServerStats {
            server: self.name.clone(),
            capacity: room.capacity,
            overbooked: room.overbooked,
            budget: stats.budget,
            slots_taken: stats.taken,
            connecting: stats.connecting,
            closing: stats.closing,
            predecessors: stats.predecessors,
            tenants_waiting: stats.tenants_waiting,
            breaker_open: stats.breaker_open,
            connects_total: self.connects.load(Relaxed),
            connect_errors_total: self.connect_errors.load(Relaxed),
            connects_refused_total: self.connects_refused.load(Relaxed),
            yields_total: stats.yields_total,
            taken_idle_total: stats.taken_idle_total,
            fail_fast_total: stats.refused_total,
        }
    }
}
