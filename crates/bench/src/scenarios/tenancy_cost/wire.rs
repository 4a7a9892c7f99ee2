//! The client of all sides: a few kept-alive connections, each of which sends its next request when the last
//! one is answered. Written by hand and on one thread, so that it takes as little as possible of the
//! processors that it shares with what it measures.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::measure::Tally;

/// What one connection sends, over and over, in this order.
pub(super) type Requests = Arc<[Vec<u8>]>;

/// One request, ready to be sent.
pub(super) fn get(path: &str, token: &str) -> Vec<u8> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/json\r\n\r\n"
    );
    request.into_bytes()
}

/// Sends for `length`, on one connection for each of `plans`.
pub(super) fn run(address: SocketAddr, plans: &[Requests], length: Duration) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let end = Instant::now() + length;
        let mut clients = JoinSet::new();
        for plan in plans.iter().filter(|plan| !plan.is_empty()) {
            clients.spawn(client(address, Arc::clone(plan), end));
        }
        let mut all = Tally::default();
        while let Some(ended) = clients.join_next().await {
            all.add(&ended??);
        }
        Ok(all)
    })
}

async fn client(address: SocketAddr, plan: Requests, end: Instant) -> anyhow::Result<Tally> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut tally, mut buffer) = (Tally::default(), Vec::with_capacity(16 * 1024));
    for request in plan.iter().cycle() {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        stream.write_all(request).await?;
        let status = answer(&mut stream, &mut buffer).await?;
        tally.wait(asked.elapsed());
        if status == 200 {
            tally.done += 1;
        } else {
            *tally.errors.entry(format!("status {status}")).or_default() += 1;
        }
    }
    Ok(tally)
}

/// Reads one answer to its end and gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, buffer).await?;
    };
    let text = std::str::from_utf8(&buffer[..head]).context("the head of an answer is text")?;
    let status = text.get(9..12).context("an answer has a status")?.parse()?;
    let length: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("an answer says its length")?
        .1
        .trim()
        .parse()?;
    while buffer.len() < head + length {
        more(stream, buffer).await?;
    }
    Ok(status)
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        bail!("the program closed the connection");
    }
    Ok(())
}
