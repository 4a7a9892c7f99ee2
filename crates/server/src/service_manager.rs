//! What systemd is told of a service of `Type=notify`: that it serves, and that it stops. Without
//! `NOTIFY_SOCKET` nothing is. (<https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>)

use std::net::SocketAddr;

use sd_notify::NotifyState;

/// The process accepts requests.
pub(crate) fn ready(listen: SocketAddr) {
    let status = format!("serving on {listen}");
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The process has begun to stop.
pub(crate) fn stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing the requests under way"),
    ]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
