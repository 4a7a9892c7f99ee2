//! A session on a tenant server as its administrator. A log-in costs more than most steps, so a session on a
//! maintenance database is kept when an operation is done with it, for the next one: few, and not for long.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pg::ConnectTarget;
use tokio_postgres::Client;

use crate::ProvisionError;

/// A session on a server's maintenance database.
#[derive(Clone)]
pub(crate) struct AdminSession {
    pub(crate) client: Arc<Client>,
    pub(crate) target: ConnectTarget,
}

/// How long a session that nobody uses is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Sessions that no operation uses at the moment, kept for the next one.
#[derive(Default)]
pub(crate) struct IdleSessions {
    sessions: Mutex<Vec<(AdminSession, Instant)>>,
}

impl IdleSessions {
    pub(super) fn take(&self, target: &ConnectTarget) -> Option<AdminSession> {
        self.drop_old();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        // As it prints and not by the address alone: the user counts too.
        let at = sessions
            .iter()
            .rposition(|(kept, _)| kept.target.to_string() == target.to_string())?;
        Some(sessions.swap_remove(at).0)
    }

    pub(super) fn put(&self, session: AdminSession, most: usize) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() < most {
            sessions.push((session, Instant::now()));
        }
    }

    /// Closes those that nobody wanted for a while, and forgets those that broke.
    pub(crate) fn drop_old(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(kept, since)| since.elapsed() < IDLE_MAX && !kept.client.is_closed());
    }
}

impl AdminSession {
    /// Runs statements that take no parameters, as DDL does not.
    pub(crate) async fn run(&self, doing: &'static str, sql: &str) -> Result<(), ProvisionError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(ProvisionError::db(doing, &self.target))
    }
}
