//! Drives a connection on a runtime, and gives its slot back in the end.

use std::time::Duration;

use arbiter::{FailureKind, Slot};
use model::TenantId;
use pg::{BorrowedSocket, Socket};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tokio_postgres::{Connection, tls::NoTlsStream};

use crate::{connection_counter::CountedConnection, wire::WatchedStream};

/// The driver's half of a connection.
pub(crate) type Driven = Connection<WatchedStream<BorrowedSocket>, NoTlsStream>;

/// Holds the slot of a connect, and then of its connection, until the backend is gone.
pub(crate) struct SlotHolder {
    connection: Option<Driven>,
    /// Receives the socket when the driver drops the connection.
    returned: Option<oneshot::Receiver<Socket>>,
    socket: Option<Socket>,
    /// `None` once it has been moved to the task that reads the socket to its end.
    counted_slot: Option<CountedSlot>,
    /// The resolver's own runtime.
    runtime: Handle,
}

/// The fields are dropped in this order: a task that waits for the count to be zero finds the slot free.
struct CountedSlot {
    slot: Slot<TenantId>,
    _counted: CountedConnection,
}

impl SlotHolder {
    pub(crate) fn new(runtime: &Handle, slot: Slot<TenantId>, counted: CountedConnection) -> Self {
        Self {
            connection: None,
            returned: None,
            socket: None,
            counted_slot: Some(CountedSlot {
                slot,
                _counted: counted,
            }),
            runtime: runtime.clone(),
        }
    }

    pub(crate) fn slot(&mut self) -> &mut Slot<TenantId> {
        let counted = self
            .counted_slot
            .as_mut()
            .expect("it is handed on when this is dropped");
        &mut counted.slot
    }

    /// The socket is connected, and the driver borrows it. From here on a backend may exist.
    pub(crate) fn dialled(&mut self, returned: oneshot::Receiver<Socket>) {
        self.returned = Some(returned);
    }

    /// The log-in succeeded.
    pub(crate) fn connected(&mut self, connection: Driven) {
        self.connection = Some(connection);
    }

    /// Drives the connection until it breaks or its handle is dropped. Then the connection has the time
    /// `goodbye` to end its statement and terminate the session.
    pub(crate) async fn drive(mut self, handle_gone: oneshot::Receiver<()>, goodbye: Duration) {
        let Some(connection) = &mut self.connection else {
            return self.end().await;
        };
        let ended = tokio::select! {
            ended = &mut *connection => Some(ended),
            _ = handle_gone => timeout(goodbye, connection).await.ok(),
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(error = pg::describe(&error), "a connection broke"),
            None => tracing::warn!(
                waited_ms = goodbye.as_millis(),
                "the router closed a connection whose statement had not ended"
            ),
        }
        self.end().await;
    }

    /// Reads until the server closes its end. Then the slot is free.
    pub(crate) async fn end(mut self) {
        self.connection = None;
        if let Some(returned) = &mut self.returned {
            self.socket = returned.await.ok();
            self.returned = None;
        }
        if let Some(socket) = &mut self.socket {
            pg::read_to_end(socket).await;
        }
        self.socket = None;
    }
}

impl Drop for SlotHolder {
    /// If the socket is still here, its runtime has ended. The resolver's runtime reads it to its end.
    fn drop(&mut self) {
        self.connection = None;
        let returned = self
            .returned
            .take()
            .and_then(|mut returned| returned.try_recv().ok());
        let Some(socket) = self.socket.take().or(returned) else {
            return;
        };
        let Some(mut counted) = self.counted_slot.take() else {
            return;
        };
        counted.slot.failed(FailureKind::Lost);
        if let Ok(arrive) = socket.leave_runtime() {
            self.runtime.spawn(async move {
                if let Ok(mut socket) = arrive() {
                    pg::read_to_end(&mut socket).await;
                }
                drop(counted);
            });
        }
    }
}
