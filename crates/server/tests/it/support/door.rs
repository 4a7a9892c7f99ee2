//! A door in front of PostgreSQL that a test can shut: the way to an unreachable registry, without touching
//! the server that other tests use.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use pg::ConnectTarget;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

#[derive(Default)]
struct State {
    /// Connections are closed as soon as they are made.
    shut: AtomicBool,
    /// Rouses the connections that are open, so that they end.
    cut: Notify,
}

pub(crate) struct Door {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Door {
    pub(crate) async fn before(target: &ConnectTarget) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let upstream = (target.host.clone(), target.port);
        let task = tokio::spawn(serve(listener, upstream, Arc::clone(&state)));
        Self { port, state, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends what is open and refuses what comes.
    pub(crate) fn shut(&self) {
        self.state.shut.store(true, SeqCst);
        self.state.cut.notify_waiters();
    }

    pub(crate) fn open(&self) {
        self.state.shut.store(false, SeqCst);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
        self.state.cut.notify_waiters();
    }
}

async fn serve(listener: TcpListener, upstream: (String, u16), state: Arc<State>) {
    while let Ok((mut caller, _)) = listener.accept().await {
        let (state, upstream) = (Arc::clone(&state), upstream.clone());
        tokio::spawn(async move {
            let cut = state.cut.notified();
            tokio::pin!(cut);
            // From here on a shutting is noticed; one that came before is seen in the flag.
            cut.as_mut().enable();
            if state.shut.load(SeqCst) {
                return;
            }
            let Ok(mut server) = TcpStream::connect(upstream).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut caller, &mut server) => {}
                () = &mut cut => {}
            }
        });
    }
}
