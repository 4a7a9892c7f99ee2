//! Stands between a client and the server and has something looked at before each of the client's messages
//! goes on: what the client leaves between two statements is seen for certain, and not only when the test is
//! fast enough.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pg::ConnectTarget;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::databases::admin;

/// A way to a server on which a question is asked before each message.
pub(crate) struct Witness {
    pub(crate) target: ConnectTarget,
    looks: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Witness {
    /// `question` counts what must never be there.
    pub(crate) async fn asking(server: &ConnectTarget, question: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut target = server.clone();
        target.host = "127.0.0.1".to_owned();
        target.port = listener.local_addr().unwrap().port();
        let (looks, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (server, counted, noted) = (server.clone(), looks.clone(), seen.clone());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, question) = (server.clone(), question.clone());
                let (counted, noted) = (counted.clone(), noted.clone());
                tokio::spawn(async move {
                    let asked = admin(&server).await;
                    let behind = TcpStream::connect((server.host.as_str(), server.port))
                        .await
                        .unwrap();
                    let (mut answers, mut onward) = behind.into_split();
                    let (mut messages, mut back) = client.into_split();
                    tokio::spawn(async move { copy(&mut answers, &mut back).await });
                    let mut chunk = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = messages.read(&mut chunk).await {
                        let found = asked.query(&question, &[]).await.unwrap().len();
                        counted.fetch_add(1, Ordering::SeqCst);
                        noted.fetch_add(found, Ordering::SeqCst);
                        if onward.write_all(&chunk[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self {
            target,
            looks,
            seen,
            listening,
        }
    }

    /// How often it looked, and how often it found something.
    pub(crate) fn saw(&self) -> (usize, usize) {
        (
            self.looks.load(Ordering::SeqCst),
            self.seen.load(Ordering::SeqCst),
        )
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
