//! The socket under a connection, for callers that must know when the backend is gone.
//!
//! The driver's own connect closes the socket and forgets it. PostgreSQL closes its end only when the backend
//! has exited, so a caller that counts backends must read until then.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};

use crate::target::{
    ConnectTarget, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, UNACKNOWLEDGED_MAX,
};

/// A connected socket, before the first byte.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Connects to the target's address, without sending anything. It has no time limit of its own.
///
/// # Errors
/// The error of the operating system.
pub async fn dial(target: &ConnectTarget) -> io::Result<Socket> {
    if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
        return Ok(Socket::Unix(UnixStream::connect(path).await?));
    }
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let options = SockRef::from(&stream);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(Socket::Tcp(stream))
}

/// Shuts down this end for writing, and reads until the other end has closed. For PostgreSQL, this means that
/// the backend is gone. The kernel notices within about a minute that a host has vanished.
pub async fn read_to_end(socket: &mut Socket) {
    // An error of either call means that the other end is gone.
    let _closed = socket.shutdown().await;
    let mut rest = [0_u8; 4096];
    while matches!(socket.read(&mut rest).await, Ok(read) if read > 0) {}
}

impl Socket {
    /// Takes the socket off the runtime on which it was made, which may have ended. Call the returned
    /// function on the new runtime.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn leave_runtime(self) -> io::Result<impl FnOnce() -> io::Result<Self> + Send + 'static> {
        enum Loose {
            Tcp(std::net::TcpStream),
            Unix(std::os::unix::net::UnixStream),
        }
        let loose = match self {
            Self::Tcp(stream) => Loose::Tcp(stream.into_std()?),
            Self::Unix(stream) => Loose::Unix(stream.into_std()?),
        };
        Ok(move || match loose {
            Loose::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Loose::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        })
    }
}

/// A socket that returns to its owner when the borrower drops it, so that the owner can [read it to its
/// end](read_to_end).
#[derive(Debug)]
pub struct BorrowedSocket {
    socket: Option<Socket>,
    back: Option<oneshot::Sender<Socket>>,
}

impl BorrowedSocket {
    /// Lends a socket; the receiver gets it back.
    #[must_use]
    pub fn new(socket: Socket) -> (Self, oneshot::Receiver<Socket>) {
        let (back, returned) = oneshot::channel();
        let lent = Self {
            socket: Some(socket),
            back: Some(back),
        };
        (lent, returned)
    }

    fn get(&mut self) -> io::Result<&mut Socket> {
        self.socket
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for BorrowedSocket {
    fn drop(&mut self) {
        if let (Some(socket), Some(back)) = (self.socket.take(), self.back.take()) {
            // If the owner does not wait for it any more, the socket closes here.
            let _nobody = back.send(socket);
        }
    }
}

macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl AsyncRead for BorrowedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().get()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for BorrowedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().get()?).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().get()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().get()?).poll_shutdown(cx)
    }
}
