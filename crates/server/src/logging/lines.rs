//! Lines on their way to the log. A thread of its own writes them, many at a time: every request has a line,
//! and a worker that wrote it itself would make a system call for each and stand still whenever the reader of
//! the log does.
//!
//! Invariants: no line is lost while the process lives, nor at its orderly end; lines keep their order;
//! memory is bounded (`WAITING_BYTES_MAX`), and a writer that finds it full waits. A line is written within
//! `GATHER`, a warning or an error at once. `kill -9` loses the lines of the last moment.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait for others to be written together with it.
const GATHER: Duration = Duration::from_millis(10);
/// The most bytes that wait to be written; a longer line is taken whole.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// The thread that writes. Dropping it writes what is left.
#[derive(Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when there is something to write.
    work: Condvar,
    /// Told when there is room again.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    urgent: bool,
    closed: bool,
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let mut text = Vec::new();
                while own.take(&mut text) {
                    // A log without a reader is no reason to stop serving.
                    let _gone = out.write_all(&text).and_then(|()| out.flush());
                    text.clear();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Where lines are put.
    #[must_use]
    pub fn writer(&self) -> LineWriter {
        LineWriter(Arc::clone(&self.shared))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, there would be no log left to write to.
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.lock();
        while waiting.text.len() >= WAITING_BYTES_MAX && !waiting.closed {
            waiting = self.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        // The thread sleeps only while nothing waits, or to gather: a word for each line would wake it for
        // each.
        let tell = waiting.text.is_empty() || (urgent && !waiting.urgent);
        waiting.urgent |= urgent;
        waiting.text.extend_from_slice(line);
        drop(waiting);
        if tell {
            self.work.notify_one();
        }
    }

    /// Waits for lines and takes them; `false` when there are none left and will be none.
    fn take(&self, text: &mut Vec<u8>) -> bool {
        let idle = |waiting: &mut Waiting| waiting.text.is_empty() && !waiting.closed;
        let waiting = self.work.wait_while(self.lock(), idle);
        let gathering = |waiting: &mut Waiting| {
            !waiting.urgent && !waiting.closed && waiting.text.len() < WAITING_BYTES_MAX
        };
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.work.wait_timeout_while(waiting, GATHER, gathering);
        let (mut waiting, _waited) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.text, text);
        waiting.urgent = false;
        let last = waiting.closed && text.is_empty();
        drop(waiting);
        self.room.notify_all();
        !last
    }
}

/// Puts lines where the thread finds them.
#[derive(Debug, Clone)]
pub struct LineWriter(Arc<Shared>);

/// One line of a known urgency.
#[derive(Debug)]
pub struct Line<'a> {
    shared: &'a Shared,
    urgent: bool,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            shared: &self.0,
            urgent: false,
        }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line {
            shared: &self.0,
            urgent: *event.level() <= Level::WARN,
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.put(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells each piece that it is given, and waits for leave before it takes it.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.1.recv().map_err(io::Error::other)?;
            self.0.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_arrives_once_and_in_order_from_each_thread() {
        const THREADS: usize = 4;
        const EACH: usize = 500;
        let (sender, receiver) = mpsc::channel();
        let (leave, wait) = mpsc::channel();
        let lines = Lines::start(Slow(sender, wait)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let writer = lines.writer();
                scope.spawn(move || {
                    for number in 0..EACH {
                        writer
                            .0
                            .put(format!("{thread} {number}\n").as_bytes(), number % 7 == 0);
                    }
                });
            }
            for _ in 0..2 * THREADS * EACH {
                leave.send(()).unwrap();
            }
        });
        drop(lines);
        let text = String::from_utf8(receiver.iter().flatten().collect()).unwrap();
        for thread in 0..THREADS {
            let prefix = format!("{thread} ");
            let own: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix))
                .collect();
            let all: Vec<_> = (0..EACH).map(|number| number.to_string()).collect();
            assert_eq!(own, all);
        }
    }

    #[test]
    fn a_full_log_holds_whoever_has_more_to_say_until_there_is_room() {
        let (sender, receiver) = mpsc::channel();
        let (leave, wait) = mpsc::channel();
        let lines = Lines::start(Slow(sender, wait)).unwrap();
        let (writer, (done, ended)) = (lines.writer(), mpsc::channel());
        let line = vec![b'x'; WAITING_BYTES_MAX];
        let talker = std::thread::spawn(move || {
            // The thread holds the first, the second fills what may wait, the third must wait itself.
            for number in 0..3 {
                writer.0.put(&line, true);
                done.send(number).unwrap();
            }
        });
        assert_eq!((ended.recv().unwrap(), ended.recv().unwrap()), (0, 1));
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err());
        for _ in 0..3 {
            leave.send(()).unwrap();
        }
        assert_eq!(ended.recv().unwrap(), 2);
        talker.join().unwrap();
        drop(lines);
        assert_eq!(
            receiver.iter().map(|piece| piece.len()).sum::<usize>(),
            3 * WAITING_BYTES_MAX
        );
    }
}
