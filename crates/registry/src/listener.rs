//! Hearing of changes: one dedicated connection that LISTENs, and what it means as typed events.
//!
//! A notification that was sent while nobody listened is gone. So each time the connection begins to listen,
//! at first and after every break, [`Event::Lost`] comes before anything else: whatever the receiver knew may
//! have changed. A connection that is only half dead says nothing, so silence is broken by a question that
//! must be answered in time.

use std::{future::poll_fn, pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use model::{OperationId, ServerName, TenantId};
use pg::ConnectTarget;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_postgres::{AsyncMessage, Connection, NoTls, Socket, tls::NoTlsStream};
use uuid::Uuid;

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowChange {
    /// It is new.
    Insert,
    /// It changed.
    Update,
    /// It is gone.
    Delete,
}

/// Something a receiver must know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A laboratory's row changed.
    TenantChanged {
        /// The laboratory.
        id: TenantId,
        /// The generation since this change; a deletion has one too, above all that were ever read of the
        /// row.
        generation: i64,
        /// What was done.
        op: RowChange,
    },
    /// A server's row changed, and with it the address of every laboratory there.
    ServerChanged {
        /// The server.
        name: ServerName,
        /// The generation since this change.
        generation: i64,
        /// What was done.
        op: RowChange,
    },
    /// An operation is new or moved.
    OperationChanged {
        /// The operation.
        id: OperationId,
    },
    /// Changes may have been missed: assume that everything changed.
    Lost,
}

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerOptions {
    /// How long making the connection may take, log-in included.
    pub connect_timeout: Duration,
    /// After how much silence the server is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long the answer may take.
    pub keepalive_timeout: Duration,
    /// The first wait before a new try.
    pub backoff_min: Duration,
    /// The longest wait before a new try.
    pub backoff_max: Duration,
    /// The most events that wait for a slow receiver; when more come, they are replaced by one
    /// [`Event::Lost`].
    pub events_max: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            events_max: 1024,
        }
    }
}

/// Yields what changes in the registry. The connection ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    events: mpsc::Receiver<Event>,
    connected: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Begins to listen, and goes on trying for as long as it lives; it never fails. Call it within a tokio
    /// runtime.
    #[must_use]
    pub fn start(target: &ConnectTarget, options: ListenerOptions) -> Self {
        let (sender, events) = mpsc::channel(options.events_max.max(1));
        let (connected_sender, connected) = watch::channel(false);
        let worker = Worker {
            target: target.clone(),
            options,
            events: sender,
            connected: connected_sender,
        };
        Self {
            events,
            connected,
            task: tokio::spawn(worker.run()),
        }
    }

    /// The next event; waits for as long as nothing happens. `None` only if the listener's own task died.
    ///
    /// Safe to drop in a `select!`: no event is lost by it.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Whether changes are heard of at present; `false` means that what is known may be out of date. Copy the
    /// value out: a borrow that is held across an `await` stops the listener.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

type PgConnection = Connection<Socket, NoTlsStream>;
type Answer<'a> = Pin<&'a mut (dyn Future<Output = Result<(), tokio_postgres::Error>> + Send)>;

struct Worker {
    target: ConnectTarget,
    options: ListenerOptions,
    events: mpsc::Sender<Event>,
    connected: watch::Sender<bool>,
}

impl Worker {
    async fn run(self) {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.options.backoff_min)
            .with_max_delay(self.options.backoff_max)
            .with_jitter()
            .without_max_times();
        let mut waits = backoff.build();
        loop {
            let reason = self.listen().await;
            // It had worked: the next try is a first one again.
            if self.connected.send_replace(false) {
                waits = backoff.build();
            }
            let wait = waits.next().unwrap_or(self.options.backoff_max);
            tracing::warn!(
                target = %self.target,
                reason,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "not listening for changes in the registry; trying again"
            );
            sleep(wait).await;
        }
    }

    /// Listens until the connection breaks; returns why it did.
    async fn listen(&self) -> String {
        let mut config = self
            .target
            .to_config("tenantry listener", self.options.connect_timeout);
        config.tcp_user_timeout(self.options.keepalive_interval + self.options.keepalive_timeout);
        let connecting = timeout(self.options.connect_timeout, config.connect(NoTls));
        let (client, mut connection) = match connecting.await {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return pg::describe(&error),
            Err(_elapsed) => return "no answer to the log-in in time".to_owned(),
        };
        let mut first = true;
        loop {
            // The first question is the one that begins to listen; later ones only ask whether anybody is
            // there.
            let question = if first {
                "LISTEN tenantry_tenants; LISTEN tenantry_operations"
            } else {
                ""
            };
            let mut answer = Box::pin(client.batch_execute(question));
            if let Err(reason) = self
                .drive(
                    &mut connection,
                    self.options.keepalive_timeout,
                    Some(answer.as_mut()),
                )
                .await
            {
                return reason;
            }
            if std::mem::take(&mut first) {
                self.connected.send_replace(true);
                if self.events.send(Event::Lost).await.is_err() {
                    return "nobody listens any more".to_owned();
                }
            }
            if let Err(reason) = self
                .drive(&mut connection, self.options.keepalive_interval, None)
                .await
            {
                return reason;
            }
        }
    }

    /// Moves the connection on and passes notifications to the receiver: until the answer comes, which must
    /// be within `limit`, or for `limit` when no answer is awaited.
    async fn drive(
        &self,
        connection: &mut PgConnection,
        limit: Duration,
        mut answer: Option<Answer<'_>>,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            tokio::select! {
                message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(n))) => self.pass_on(&event(n.channel(), n.payload())).await,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(pg::describe(&error)),
                    None => return Err("the server closed the connection".to_owned()),
                },
                result = async {
                    match answer.as_mut() {
                        Some(answer) => answer.as_mut().await,
                        None => std::future::pending().await,
                    }
                } => return result.map_err(|error| pg::describe(&error)),
                () = sleep_until(end) => {
                    return match answer {
                        Some(_) => Err(format!("no answer within {} ms", limit.as_millis())),
                        None => Ok(()),
                    };
                }
            }
        }
    }

    async fn pass_on(&self, event: &Event) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event.clone()) {
            // Reading stops here until the receiver has taken one; the server keeps what comes meanwhile.
            let _closed = self.events.send(Event::Lost).await;
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Payload {
    Tenant {
        id: Uuid,
        generation: i64,
        op: RowChange,
    },
    Server {
        server: String,
        generation: i64,
        op: RowChange,
    },
    Operation {
        id: Uuid,
    },
}

/// What a notification means. One that cannot be read means that anything may have changed.
fn event(channel: &str, payload: &str) -> Event {
    let parsed = serde_json::from_str(payload)
        .ok()
        .and_then(|payload| match (channel, payload) {
            ("tenantry_tenants", Payload::Tenant { id, generation, op }) => Some(Event::TenantChanged {
                id: id.into(),
                generation,
                op,
            }),
            (
                "tenantry_tenants",
                Payload::Server {
                    server,
                    generation,
                    op,
                },
            ) => Some(Event::ServerChanged {
                name: ServerName::parse(&server).ok()?,
                generation,
                op,
            }),
            ("tenantry_operations", Payload::Operation { id }) => {
                Some(Event::OperationChanged { id: id.into() })
            }
            _ => None,
        });
    parsed.unwrap_or_else(|| {
        tracing::warn!(
            channel,
            payload,
            "a notification that cannot be read; assuming that everything changed"
        );
        Event::Lost
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_counts_as_lost() {
        let id = "018f0000-0000-7000-8000-000000000000";
        let good = format!(r#"{{"id":"{id}","generation":7,"op":"delete"}}"#);
        assert_eq!(
            event("tenantry_tenants", &good),
            Event::TenantChanged {
                id: id.parse().unwrap(),
                generation: 7,
                op: RowChange::Delete
            }
        );
        for (channel, payload) in [
            ("tenantry_tenants", ""),
            ("tenantry_tenants", r#"{"id":"x","generation":1,"op":"update"}"#),
            (
                "tenantry_tenants",
                r#"{"server":"NOT A NAME","generation":1,"op":"update"}"#,
            ),
            ("elsewhere", good.as_str()),
        ] {
            assert_eq!(event(channel, payload), Event::Lost, "{channel} {payload}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_falls_behind_is_told_that_it_lost_something() {
        let (events, mut receiver) = mpsc::channel(2);
        let worker = Worker {
            target: ConnectTarget {
                host: "nowhere".to_owned(),
                port: 1,
                user: "nobody".to_owned(),
                password: String::new().into(),
                database: "none".to_owned(),
            },
            options: ListenerOptions::default(),
            events,
            connected: watch::channel(true).0,
        };
        let numbered: Vec<_> = (0..3)
            .map(|_| Event::OperationChanged {
                id: OperationId::generate(),
            })
            .collect();
        worker.pass_on(&numbered[0]).await;
        worker.pass_on(&numbered[1]).await;
        // The third finds no room: it waits for some and is replaced by the word that something is missing.
        let ((), first) = tokio::join!(worker.pass_on(&numbered[2]), receiver.recv());
        assert_eq!(first.as_ref(), Some(&numbered[0]));
        assert_eq!(receiver.recv().await.as_ref(), Some(&numbered[1]));
        drop(worker);
        assert_eq!(receiver.recv().await, Some(Event::Lost));
        assert_eq!(receiver.recv().await, None);
    }
}
