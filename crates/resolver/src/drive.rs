//! On which runtime a connection is made and driven, and what becomes of its slot in the end.

use std::{sync::Arc, time::Duration};

use arbiter::Slot;
use pg::{Lent, Socket};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tokio_postgres::{Connection, tls::NoTlsStream};

use crate::{census::Counted, pool::TenantPool, wire::Watched};

/// The driver's half of a connection.
pub(crate) type Driven = Connection<Watched<Lent>, NoTlsStream>;

/// A runtime that belongs to callers, while a connect takes place on it. It may end at any time, and then the connect ends
/// where it is: the pool must know before another one begins.
pub(crate) struct Hosted {
    pool: Arc<TenantPool>,
    runtime: Option<Handle>,
}

/// The slot of a connection, or of a connect that failed, until the backend is gone.
pub(crate) struct Occupied {
    connection: Option<Driven>,
    /// Where the socket comes back from the connection.
    returned: Option<oneshot::Receiver<Socket>>,
    /// In this order: whoever waits for the count to be zero finds the slot free.
    place: Option<(Slot<TenantPool>, Counted)>,
    /// The resolver's own.
    runtime: Handle,
}

impl Hosted {
    pub(crate) fn new(pool: &Arc<TenantPool>, runtime: &Handle) -> Self {
        Self {
            pool: Arc::clone(pool),
            runtime: Some(runtime.clone()),
        }
    }

    /// The connect is over.
    pub(crate) fn done(mut self) {
        self.runtime = None;
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(runtime) = &self.runtime {
            self.pool.callers_gone(runtime);
        }
    }
}

impl Occupied {
    pub(crate) fn new(
        runtime: &Handle,
        connection: Option<Driven>,
        returned: Option<oneshot::Receiver<Socket>>,
        place: (Slot<TenantPool>, Counted),
    ) -> Self {
        Self {
            connection,
            returned,
            place: Some(place),
            runtime: runtime.clone(),
        }
    }

    /// Drives the connection until it breaks or its handle is gone, which is given `goodbye` to end its statement and take leave.
    pub(crate) async fn drive(mut self, handle_gone: oneshot::Receiver<()>, goodbye: Duration) {
        if let Some(connection) = &mut self.connection {
            let ended = tokio::select! {
                ended = &mut *connection => Some(ended),
                _ = handle_gone => timeout(goodbye, connection).await.ok(),
            };
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(error = pg::describe(&error), "a connection broke"),
                None => tracing::warn!(
                    waited_ms = goodbye.as_millis(),
                    "a connection was cut: its statement had not ended"
                ),
            }
        }
        self.end().await;
    }

    /// Reads what is left until the server closes its end. The slot is free then.
    pub(crate) async fn end(mut self) {
        self.connection = None;
        if let Some(returned) = self.returned.take()
            && let Ok(socket) = returned.await
        {
            pg::read_to_end(socket).await;
        }
    }
}

impl Drop for Occupied {
    /// If the socket is still here, its runtime has ended before it: it is read to its end on ours.
    fn drop(&mut self) {
        self.connection = None;
        let Some(Ok(socket)) = self.returned.take().map(|mut returned| returned.try_recv()) else {
            return;
        };
        if let (Ok(arrive), Some(place)) = (socket.leave_runtime(), self.place.take()) {
            self.runtime.spawn(async move {
                if let Ok(socket) = arrive() {
                    pg::read_to_end(socket).await;
                }
                drop(place);
            });
        }
    }
}
