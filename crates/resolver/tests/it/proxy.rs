//! A proxy in front of PostgreSQL that a test can close: it makes a server unreachable without touching the
//! server that other tests use.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use pg::ConnectTarget;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// What the proxy does with connections.
#[derive(Default)]
struct Door {
    /// The proxy closes connections as soon as they are made.
    shut: AtomicBool,
    /// The proxy accepts connections and never answers.
    mute: AtomicBool,
    /// How long the proxy delays each piece of the server's answers, in milliseconds.
    delay_ms: AtomicU64,
    /// Wakes the tasks of open connections, so that they end.
    cut: Notify,
    accepted: AtomicUsize,
    /// Connections on which the client has sent something and got no answer.
    unheard: AtomicUsize,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    door: Arc<Door>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(target: &ConnectTarget) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Arc::new(Door::default());
        let upstream = (target.host.clone(), target.port);
        let task = tokio::spawn(serve(listener, upstream, Arc::clone(&door)));
        Self { address, door, task }
    }

    pub(crate) fn host(&self) -> String {
        self.address.ip().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The same log-in through the proxy.
    pub(crate) fn through(&self, target: &ConnectTarget) -> ConnectTarget {
        ConnectTarget {
            host: self.host(),
            port: self.port(),
            ..target.clone()
        }
    }

    /// Ends open connections and refuses new ones.
    pub(crate) fn shut(&self) {
        self.door.shut.store(true, SeqCst);
        self.door.cut.notify_waiters();
    }

    /// Ends open connections and leaves new ones without an answer.
    pub(crate) fn mute(&self) {
        self.door.mute.store(true, SeqCst);
        self.door.cut.notify_waiters();
    }

    /// Delays everything that the server sends by `delay`, also on open connections.
    pub(crate) fn slow_down(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap();
        self.door.delay_ms.store(delay_ms, SeqCst);
    }

    pub(crate) fn open(&self) {
        self.door.shut.store(false, SeqCst);
        self.door.mute.store(false, SeqCst);
    }

    pub(crate) fn unheard(&self) -> usize {
        self.door.unheard.load(SeqCst)
    }

    pub(crate) fn accepted(&self) -> usize {
        self.door.accepted.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.door.cut.notify_waiters();
    }
}

async fn serve(listener: TcpListener, upstream: (String, u16), door: Arc<Door>) {
    while let Ok((mut caller, _)) = listener.accept().await {
        door.accepted.fetch_add(1, SeqCst);
        if door.shut.load(SeqCst) {
            continue;
        }
        let (door, upstream) = (Arc::clone(&door), upstream.clone());
        tokio::spawn(async move {
            let cut = door.cut.notified();
            tokio::pin!(cut);
            cut.as_mut().enable();
            if door.mute.load(SeqCst) {
                let hears = async {
                    if matches!(caller.peek(&mut [0]).await, Ok(1)) {
                        door.unheard.fetch_add(1, SeqCst);
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = hears => {}
                    () = &mut cut => {}
                }
                return;
            }
            let Ok(mut server) = TcpStream::connect(upstream).await else {
                return;
            };
            tokio::select! {
                () = pass_on(&mut caller, &mut server, &door) => {}
                () = &mut cut => {}
            }
        });
    }
}

/// Copies in both directions until one side ends, delaying the server's answers as set.
async fn pass_on(caller: &mut TcpStream, server: &mut TcpStream, door: &Door) {
    let (mut from_caller, mut to_caller) = caller.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = async {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            let delay = Duration::from_millis(door.delay_ms.load(SeqCst));
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if to_caller.write_all(&piece[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_caller, &mut to_server) => {}
    }
}
