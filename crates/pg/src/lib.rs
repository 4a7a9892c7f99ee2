//! Connects to PostgreSQL servers for every crate: a connection target that redacts its password, and one way
//! to connect, with a time limit over the whole connect.
//!
//! Why a crate of its own: tokio-postgres' `connect_timeout` covers the socket and not the log-in, so a
//! server that accepts a connection and then stays silent would block a caller for ever. This crate knows no
//! tenant and runs no SQL.

mod literal;
mod socket;
mod target;

use std::time::Duration;

use tokio_postgres::{Client, NoTls, error::SqlState};

pub use crate::{
    literal::literal,
    socket::{BorrowedSocket, Socket, dial, read_to_end},
    target::ConnectTarget,
};

/// Why a connect failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server did not finish the log-in in time.
    #[error("no answer from {target} within {} ms; is the server up and reachable?", .limit.as_millis())]
    TimedOut {
        /// Which server and database.
        target: String,
        /// The time limit.
        limit: Duration,
    },
    /// The server could not be reached or refused the log-in.
    #[error("cannot connect to {target}: {}", describe(.source))]
    Refused {
        /// Which server and database.
        target: String,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
}

impl ConnectError {
    /// Whether the server refused the password.
    #[must_use]
    pub fn is_wrong_password(&self) -> bool {
        self.code() == Some(&SqlState::INVALID_PASSWORD)
    }

    /// The SQLSTATE of the server's refusal, if it was the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::TimedOut { .. } => None,
            Self::Refused { source, .. } => source.code(),
        }
    }
}

/// Connects within `limit`, including the log-in, and drives the connection on a task that ends with the
/// client.
///
/// # Errors
/// [`ConnectError`] names the target and what to check.
pub async fn connect(
    target: &ConnectTarget,
    application: &str,
    limit: Duration,
) -> Result<Client, ConnectError> {
    connect_with(target, application, limit, "").await
}

/// As [`connect`], with session settings in the form of the server's command line (`-c lock_timeout=10s`).
/// The log-in carries them, so they cost no round trip of their own.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    target: &ConnectTarget,
    application: &str,
    limit: Duration,
    settings: &str,
) -> Result<Client, ConnectError> {
    let mut config = target.to_config(application, limit);
    // Not even an empty text where there are no settings: some proxies refuse a log-in that has any.
    if !settings.is_empty() {
        config.options(settings);
    }
    match tokio::time::timeout(limit, config.connect(NoTls)).await {
        Err(_elapsed) => Err(ConnectError::TimedOut {
            target: target.to_string(),
            limit,
        }),
        Ok(Err(source)) => Err(ConnectError::Refused {
            target: target.to_string(),
            source,
        }),
        Ok(Ok((client, connection))) => {
            let name = target.to_string();
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(target = name, error = describe(&error), "connection ended");
                }
            });
            Ok(client)
        }
    }
}

/// SQLSTATE classes in which the server's DETAIL and HINT are its own words about objects and sessions. In
/// the other classes they may hold values of rows, which are patients' data: data exceptions (22), violated
/// constraints (23) and views' checks (44) show the row, and functions raise whatever their author wrote (P0
/// and codes of their own).
const DETAIL_SHOWN: [&str; 18] = [
    "08", "0A", "0L", "0P", "25", "28", "2B", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58",
    "F0",
];

/// The driver's error with its causes: its own `Display` says only "db error" where the server's words would
/// help. Adds the server's DETAIL and HINT in those SQLSTATE classes in which neither can hold a row's
/// values.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return described(db.code().code(), db.message(), db.detail(), db.hint());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// The text of [`describe`] if `error` is an error of the driver; `None` for any other error. For the causes
/// of other errors.
#[must_use]
pub fn described_cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<tokio_postgres::Error>().map(describe)
}

/// What [`describe`] says of a server that takes no writes, whichever statement it refused: the statement's
/// name would not help.
const READ_ONLY: &str = "it takes no writes now (SQLSTATE 25006): it is a standby, as after a failover, or \
    default_transaction_read_only is on, which providers set when a disk is full; connect to the primary, \
    free or add space, or find out who set it (`tenantctl doctor` names the server)";

fn described(code: &str, message: &str, detail: Option<&str>, hint: Option<&str>) -> String {
    if code == SqlState::READ_ONLY_SQL_TRANSACTION.code() {
        return READ_ONLY.to_owned();
    }
    let mut text = format!("{message} (SQLSTATE {code})");
    if code.get(..2).is_some_and(|class| DETAIL_SHOWN.contains(&class)) {
        for (what, said) in [("detail", detail), ("hint", hint)] {
            if let Some(said) = said {
                text.push_str(&format!("; {what}: {}", said.replace('\n', "; ")));
            }
        }
    }
    text
}

/// Whether the server takes no writes: it is a standby, or `default_transaction_read_only` is on, which
/// providers use to keep a full disk from filling further (SQLSTATE 25006). A write in a read-only
/// transaction fails in the same way.
#[must_use]
pub fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// SQLSTATEs with which statements fail that were prepared before a schema change: the types of their results
/// have changed (0A000, "cached plan must not change result type"), or the types of their parameters (42804,
/// 42883, 42846, 42725), or the server has dropped them (26000). Most of these have other causes as well;
/// then preparing again changes nothing.
pub const OUTDATED: [&str; 6] = ["0A000", "26000", "42804", "42883", "42846", "42725"];

/// Whether a statement may have failed only because it was prepared before a schema change, so that it
/// succeeds when it is prepared again.
#[must_use]
pub fn is_outdated(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| OUTDATED.contains(&code.code()))
}

/// Whether the caller could not reach the server, or the server was shut down, starting or full, and the
/// statement is not at fault. Such a failure may pass by itself.
#[must_use]
pub fn is_unavailable(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => {
            error.is_closed() || std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>())
        }
        Some(code) => {
            // Class 08: connection exception. 57P0x: shut down, crashed, starting up. 53300: too many
            // connections.
            code.code().starts_with("08")
                || [
                    &SqlState::ADMIN_SHUTDOWN,
                    &SqlState::CRASH_SHUTDOWN,
                    &SqlState::CANNOT_CONNECT_NOW,
                    &SqlState::TOO_MANY_CONNECTIONS,
                ]
                .contains(&code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_and_hint_are_shown_where_they_cannot_hold_a_rows_values() {
        let shown = |code| described(code, "no", Some("two\nlines"), Some("do"));
        assert_eq!(
            shown("55006"),
            "no (SQLSTATE 55006); detail: two; lines; hint: do"
        );
        for code in ["23505", "22P02", "44000", "P0001", "TNTRY", "XX001", ""] {
            assert_eq!(shown(code), format!("no (SQLSTATE {code})"));
        }
        assert_eq!(described("42P01", "no", None, None), "no (SQLSTATE 42P01)");
        let read_only = described(
            "25006",
            "cannot execute UPDATE in a read-only transaction",
            None,
            None,
        );
        assert!(
            read_only.contains("takes no writes") && !read_only.contains("UPDATE"),
            "{read_only}"
        );
    }
}
