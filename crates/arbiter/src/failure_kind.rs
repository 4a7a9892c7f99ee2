/// What a failed connect says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The server did not answer in time.
    Silent,
    /// The server cannot be reached, or it is shutting down or starting.
    Unreachable,
    /// The server answers and has no room for another connection.
    Full,
    /// The server answers and refuses this log-in.
    Refused,
    /// The pool did not try to connect, for a reason of its own. This says nothing about the server.
    NotTried,
    /// The outcome is unknown: the task that connected panicked or was cancelled.
    Lost,
}
