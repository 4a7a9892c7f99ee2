//! Follows the state of a session from the bytes of its connection.
//!
//! The driver drops two facts that decide whether a connection may be used again: the transaction status that
//! every ReadyForQuery carries, and the tags of the commands that the server completed. This module reads
//! both as the bytes pass, which costs a look at five bytes per message. The state is that of the *answered*
//! statements. It is read when a caller gives a connection back with every statement answered.
//!
//! What SQL functions do is not on the wire. So a statement whose text names a function with an effect on the
//! session (`set_config`, advisory locks, temporary tables) marks its connection for good, and the resolver
//! cleans the session each time the connection is given back.
//!
//! Format: PostgreSQL documentation, "Message Formats" of the frontend/backend protocol, version 3.

use std::{
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The session, as far as the wire shows it.
#[derive(Debug, Default)]
pub(crate) struct WireState {
    /// The status byte of the latest ReadyForQuery: `I`dle, in a `T`ransaction, in one that has `E`rred. Zero
    /// before the first.
    status: AtomicU8,
    /// The session has leftovers that a cleaning removes.
    dirty: AtomicBool,
    /// The session has changes that a cleaning may not undo.
    unrecoverable: AtomicBool,
    /// The session uses statements with hidden effects.
    volatile: AtomicBool,
    /// A statement failed with an error that statements raise which were prepared before a schema change.
    outdated: AtomicBool,
    /// How often the server reported that it was ready for the next statement; wraps around.
    answers: AtomicU32,
}

impl WireState {
    /// Whether the session is like new for the next caller.
    pub(crate) fn is_clean(&self) -> bool {
        self.status.load(Relaxed) == b'I' && !self.is_dirty() && !self.unrecoverable.load(Relaxed)
    }

    /// Whether a cleaning would not restore the session.
    pub(crate) fn is_unrecoverable(&self) -> bool {
        self.unrecoverable.load(Relaxed)
    }

    /// Whether, since the last reset, a statement has failed with an error that statements raise which were
    /// prepared before a schema change.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Relaxed)
    }

    /// As [`Self::is_outdated`], and resets it. The caller must drop the prepared statements.
    pub(crate) fn take_outdated(&self) -> bool {
        // The flag is almost never set, and a load shares the cache line.
        self.is_outdated() && self.outdated.swap(false, Relaxed)
    }

    /// A number that changes with each answer of the server.
    pub(crate) fn answers(&self) -> u32 {
        self.answers.load(Relaxed)
    }

    /// Notes that the session was cleaned; the effects of the cleaning itself do not count.
    pub(crate) fn cleaned(&self) {
        self.dirty.store(false, Relaxed);
    }

    fn is_dirty(&self) -> bool {
        self.dirty.load(Relaxed) || self.volatile.load(Relaxed)
    }

    fn note_tag(&self, tag: &[u8]) {
        match SideEffect::of(tag) {
            SideEffect::None => {}
            SideEffect::Removable => self.dirty.store(true, Relaxed),
            SideEffect::Lasting => self.unrecoverable.store(true, Relaxed),
        }
    }

    /// `body`: the beginning of an ErrorResponse.
    fn note_error(&self, body: &[u8]) {
        match sqlstate(body) {
            Some(code) if pg::OUTDATED.iter().any(|outdated| outdated.as_bytes() == code) => {
                self.outdated.store(true, Relaxed);
            }
            // A server that became a standby stays one for this connection; a new connection may lead to the
            // new primary.
            Some(READ_ONLY) => self.unrecoverable.store(true, Relaxed),
            _ => {}
        }
    }
}

/// `read_only_sql_transaction`.
const READ_ONLY: &[u8] = b"25006";

/// The code of an ErrorResponse: fields of a type byte and a text that ends with NUL, `C` for the code.
fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    body.split(|&byte| byte == 0)
        .find_map(|field| field.strip_prefix(b"C"))
        .filter(|code| code.len() == 5)
}

/// What a command leaves in the session after its transaction.
#[derive(Debug, PartialEq, Eq)]
enum SideEffect {
    None,
    Removable,
    Lasting,
}

impl SideEffect {
    /// Judges by the tag of CommandComplete. An unknown tag counts as lasting.
    fn of(tag: &[u8]) -> Self {
        const NONE: [&[u8]; 25] = [
            b"SELECT",
            b"INSERT",
            b"UPDATE",
            b"DELETE",
            b"MERGE",
            b"FETCH",
            b"MOVE",
            b"COPY",
            b"BEGIN",
            b"START TRANSACTION",
            b"COMMIT",
            b"ROLLBACK",
            b"SAVEPOINT",
            b"RELEASE",
            b"SET CONSTRAINTS",
            b"LOCK TABLE",
            b"TRUNCATE",
            b"SHOW",
            b"EXPLAIN",
            b"NOTIFY",
            b"CLOSE CURSOR",
            b"ANALYZE",
            b"COMMENT",
            b"DISCARD TEMP",
            b"DISCARD SEQUENCES",
        ];
        const REMOVABLE: [&[u8]; 12] = [
            b"SET",
            b"RESET",
            b"LISTEN",
            b"UNLISTEN",
            b"DECLARE CURSOR",
            b"DO",
            b"CALL",
            b"CREATE",
            b"ALTER",
            b"DROP",
            b"GRANT",
            b"REVOKE",
        ];
        // "SET" must not match "SET CONSTRAINTS", so the harmless tags are tried first.
        let starts = |known: &[&[u8]]| {
            known.iter().any(|word| {
                tag.strip_prefix(*word)
                    .is_some_and(|rest| matches!(rest.first(), None | Some(b' ')))
            })
        };
        if starts(&NONE) {
            Self::None
        } else if starts(&REMOVABLE) {
            Self::Removable
        } else {
            Self::Lasting
        }
    }
}

/// Long enough for every known tag, and for an error up to its code, which follows two severities, one of
/// them in the server's language.
const START_MAX: usize = 96;

/// Reads the server's messages as they pass, however they are split.
#[derive(Debug)]
struct FromServer {
    header: [u8; 5],
    header_len: usize,
    left: usize,
    start: [u8; START_MAX],
    start_len: usize,
}

impl Default for FromServer {
    fn default() -> Self {
        Self {
            header: [0; 5],
            header_len: 0,
            left: 0,
            start: [0; START_MAX],
            start_len: 0,
        }
    }
}

impl FromServer {
    fn feed(&mut self, mut bytes: &[u8], wire_state: &WireState) {
        while !bytes.is_empty() {
            if self.header_len < 5 {
                let take = bytes.len().min(5 - self.header_len);
                self.header[self.header_len..self.header_len + take].copy_from_slice(&bytes[..take]);
                self.header_len += take;
                bytes = &bytes[take..];
                if self.header_len < 5 {
                    return;
                }
                self.left = body_len(&self.header[1..]);
                self.start_len = 0;
            }
            let body = bytes.len().min(self.left);
            if matches!(self.header[0], b'Z' | b'C' | b'E') {
                let keep = body.min(START_MAX - self.start_len);
                self.start[self.start_len..self.start_len + keep].copy_from_slice(&bytes[..keep]);
                self.start_len += keep;
            }
            self.left -= body;
            bytes = &bytes[body..];
            if self.left == 0 {
                self.message(wire_state);
                self.header_len = 0;
            }
        }
    }

    fn message(&self, wire_state: &WireState) {
        let start = &self.start[..self.start_len];
        match self.header[0] {
            b'Z' => {
                wire_state
                    .status
                    .store(start.first().copied().unwrap_or(0), Relaxed);
                // Only the task that reads the stream writes this.
                wire_state
                    .answers
                    .store(wire_state.answers().wrapping_add(1), Relaxed);
            }
            b'C' => {
                let end = start.iter().position(|&byte| byte == 0).unwrap_or(start.len());
                wire_state.note_tag(&start[..end]);
            }
            b'E' => wire_state.note_error(start),
            _ => {}
        }
    }
}

/// Searches the statements that are sent for the names of functions with hidden effects, however the bytes
/// are split.
#[derive(Debug, Default)]
struct ToServer {
    /// The start-up message has no type byte.
    started: bool,
    header: [u8; 5],
    header_len: usize,
    left: usize,
    /// The end of the searched text, in lower case and with one space for any white space, so that a name
    /// that is split in two is found.
    tail: Vec<u8>,
}

/// In lower case. `CREATE TEMP TABLE … AS` and `SELECT … INTO TEMP` have the tag of a SELECT, so the text
/// decides.
const HIDDEN: [&[u8]; 8] = [
    b"set_config",
    b"advisory_lock",
    b"pg_temp",
    b"temporary",
    b"create temp ",
    b"local temp ",
    b"global temp ",
    b"into temp ",
];
const HIDDEN_MAX: usize = 13;

impl ToServer {
    fn feed(&mut self, mut bytes: &[u8], wire_state: &WireState) {
        while !bytes.is_empty() {
            if self.header_len < 5 {
                if !self.started && self.header_len == 0 {
                    self.header_len = 1;
                }
                let take = bytes.len().min(5 - self.header_len);
                self.header[self.header_len..self.header_len + take].copy_from_slice(&bytes[..take]);
                self.header_len += take;
                bytes = &bytes[take..];
                if self.header_len < 5 {
                    return;
                }
                self.left = body_len(&self.header[1..]);
                self.tail.clear();
            }
            let body = bytes.len().min(self.left);
            if self.started && matches!(self.header[0], b'Q' | b'P') && !wire_state.volatile.load(Relaxed) {
                self.look(&bytes[..body], wire_state);
            }
            self.left -= body;
            bytes = &bytes[body..];
            if self.left == 0 {
                self.header_len = 0;
                self.started = true;
            }
        }
    }

    fn look(&mut self, text: &[u8], wire_state: &WireState) {
        for byte in text {
            let byte = if byte.is_ascii_whitespace() {
                b' '
            } else {
                byte.to_ascii_lowercase()
            };
            if byte != b' ' || self.tail.last() != Some(&b' ') {
                self.tail.push(byte);
            }
        }
        if HIDDEN
            .iter()
            .any(|name| memchr::memmem::find(&self.tail, name).is_some())
        {
            wire_state.volatile.store(true, Relaxed);
        }
        let keep = self.tail.len().min(HIDDEN_MAX - 1);
        self.tail.drain(..self.tail.len() - keep);
    }
}

/// The length field counts itself.
fn body_len(length: &[u8]) -> usize {
    let length = length
        .first_chunk::<4>()
        .map_or(4, |bytes| u32::from_be_bytes(*bytes));
    usize::try_from(length.saturating_sub(4)).unwrap_or(usize::MAX)
}

/// A stream that inspects the bytes as they pass.
#[derive(Debug)]
pub(crate) struct WatchedStream<T> {
    stream: T,
    from_server: FromServer,
    to_server: ToServer,
    wire_state: Arc<WireState>,
}

impl<T> WatchedStream<T> {
    pub(crate) fn new(stream: T) -> (Self, Arc<WireState>) {
        let wire_state = Arc::new(WireState::default());
        let watched = Self {
            stream,
            from_server: FromServer::default(),
            to_server: ToServer::default(),
            wire_state: Arc::clone(&wire_state),
        };
        (watched, wire_state)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) {
            this.from_server.feed(&buf.filled()[before..], &this.wire_state);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.to_server.feed(&buf[..written], &this.wire_state);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn tagged(tag: &str, status: u8) -> WireState {
        let wire_state = WireState::default();
        let bytes = [
            message(b'C', format!("{tag}\0").as_bytes()),
            message(b'Z', &[status]),
        ]
        .concat();
        FromServer::default().feed(&bytes, &wire_state);
        wire_state
    }

    #[test]
    fn ordinary_work_leaves_the_session_clean_and_an_open_transaction_does_not() {
        for tag in [
            "SELECT 1",
            "INSERT 0 5",
            "COMMIT",
            "ROLLBACK",
            "SET CONSTRAINTS",
            "START TRANSACTION",
        ] {
            assert!(tagged(tag, b'I').is_clean(), "{tag}");
        }
        assert!(!tagged("BEGIN", b'T').is_clean());
        assert!(!tagged("SELECT 1", b'E').is_clean());
    }

    #[test]
    fn settings_and_the_like_are_cleaned_and_what_is_unknown_ends_the_connection() {
        for tag in ["SET", "RESET", "LISTEN", "DECLARE CURSOR", "GRANT", "DO"] {
            let wire_state = tagged(tag, b'I');
            assert!(!wire_state.is_clean() && !wire_state.is_unrecoverable(), "{tag}");
            wire_state.cleaned();
            assert!(wire_state.is_clean(), "{tag}");
        }
        for tag in ["PREPARE", "DISCARD ALL", "DEALLOCATE ALL", "SETTLE", "REPACK"] {
            assert!(tagged(tag, b'I').is_unrecoverable(), "{tag}");
        }
    }

    fn failed(code: &str) -> WireState {
        let wire_state = WireState::default();
        let body = format!("SFATALER FEHLER\0VERROR\0C{code}\0MCachedn plan\0Fplancache.c\0\0");
        let bytes = [message(b'E', body.as_bytes()), message(b'Z', b"I")].concat();
        let mut reader = FromServer::default();
        bytes.chunks(7).for_each(|piece| reader.feed(piece, &wire_state));
        wire_state
    }

    #[test]
    fn an_outdated_statement_is_told_once_and_a_read_only_server_ends_the_connection() {
        for code in ["0A000", "26000", "42804"] {
            let wire_state = failed(code);
            assert!(wire_state.is_clean() && wire_state.is_outdated(), "{code}");
            assert!(
                wire_state.take_outdated() && !wire_state.take_outdated(),
                "{code}"
            );
        }
        for code in ["23505", "42501", "42P01"] {
            let wire_state = failed(code);
            assert!(wire_state.is_clean() && !wire_state.is_outdated(), "{code}");
        }
        assert!(failed("25006").is_unrecoverable());
    }

    #[test]
    fn the_pieces_in_which_bytes_come_do_not_matter() {
        let rows = message(b'D', &[7; 300]);
        let bytes = [rows, message(b'C', b"SET\0"), message(b'Z', b"T")].concat();
        for size in 1..40 {
            let (wire_state, mut reader) = (WireState::default(), FromServer::default());
            bytes
                .chunks(size)
                .for_each(|piece| reader.feed(piece, &wire_state));
            assert!(
                wire_state.dirty.load(Relaxed) && wire_state.status.load(Relaxed) == b'T',
                "{size}"
            );
        }
    }

    #[test]
    fn a_function_with_hidden_effects_marks_the_connection_for_good() {
        let start = [&9_u32.to_be_bytes()[..], b"hello"].concat();
        let parse = message(b'P', b"s1\0SELECT Set_Config('a.b', $1, false)\0\0\0");
        for size in 1..60 {
            let (wire_state, mut writer) = (WireState::default(), ToServer::default());
            [start.clone(), parse.clone()]
                .concat()
                .chunks(size)
                .for_each(|piece| writer.feed(piece, &wire_state));
            wire_state.status.store(b'I', Relaxed);
            wire_state.cleaned();
            assert!(!wire_state.is_clean(), "{size}");
        }
        let (wire_state, mut writer) = (WireState::default(), ToServer::default());
        let bind = message(b'B', b"\0s1\0set_config");
        writer.feed(&[start, message(b'Q', b"SELECT 1\0"), bind].concat(), &wire_state);
        wire_state.status.store(b'I', Relaxed);
        assert!(wire_state.is_clean(), "a value is no statement");
    }

    #[test]
    fn a_temporary_table_shows_however_it_is_made_and_a_column_of_that_name_does_not() {
        let dirty = |sql: &str| {
            let (wire_state, mut writer) = (WireState::default(), ToServer::default());
            let start = [&9_u32.to_be_bytes()[..], b"hello"].concat();
            let query = message(b'Q', format!("{sql}\0").as_bytes());
            writer.feed(&[start, query].concat(), &wire_state);
            wire_state.status.store(b'I', Relaxed);
            !wire_state.is_clean()
        };
        for sql in [
            "create Temp\n\ttable t as select 1",
            "create  temporary view v as select 1",
            "SELECT 1 AS a INTO  TEMP t",
            "create local Temp table t (a int)",
            "create table pg_temp.t as select 1",
        ] {
            assert!(dirty(sql), "{sql}");
        }
        for sql in ["SELECT temp FROM sample", "INSERT INTO temperature VALUES (1)"] {
            assert!(!dirty(sql), "{sql}");
        }
    }
}
