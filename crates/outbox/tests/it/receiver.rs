//! A receiver of webhooks: it keeps what comes, and answers as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use reqwest::header::HeaderMap;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    /// With these lines in the head, and this body.
    Full(u16, String, String),
    /// Not at all; the connection stays open.
    Hang,
    /// When it is told to.
    When(Arc<Notify>, u16),
}

#[derive(Default)]
struct State {
    got: Vec<Got>,
    replies: VecDeque<Reply>,
    usual: Option<Reply>,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Answers 200 until it is told otherwise.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/hook?token=t0ken", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = receiver.state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, state.clone()));
            }
        });
        receiver
    }

    /// Answers like this first, one after the other.
    pub(crate) fn first(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.lock().unwrap().replies.extend(replies);
    }

    /// Answers like this from now on.
    pub(crate) fn always(&self, reply: Reply) {
        self.state.lock().unwrap().usual = Some(reply);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.state.lock().unwrap().got.clone()
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.got().iter().map(Got::kind).collect()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until(&self, count: usize) -> Vec<Got> {
        let what = format!("{count} requests");
        testkit::eventually(&what, crate::harness::PATIENCE, async || {
            self.got().len() >= count
        })
        .await;
        self.got()
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut headers = HeaderMap::new();
        let mut line = String::new();
        if socket.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        loop {
            line.clear();
            socket.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let length = headers["content-length"].to_str().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        let reply = {
            let mut state = state.lock().unwrap();
            state.got.push(Got {
                headers,
                body: String::from_utf8(body).unwrap(),
            });
            let next = state.replies.pop_front().or_else(|| state.usual.clone());
            next.unwrap_or(Reply::Status(200))
        };
        let (status, head, body) = match reply {
            Reply::Status(status) => (status, String::new(), String::new()),
            Reply::Full(status, head, body) => (status, head, body),
            Reply::Hang => std::future::pending().await,
            Reply::When(reported, status) => {
                reported.notified().await;
                (status, String::new(), String::new())
            }
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{head}\r\n{body}");
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}
