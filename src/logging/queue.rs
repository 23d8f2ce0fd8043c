//! Lines on their way to the log's disk.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::FormatTime;

use crate::spool::{self, Outlet, Spool, SpoolGuard};

/// Keeps the log's thread going; the rest is written when it is dropped.
pub(super) type QueueGuard = SpoolGuard<Vec<u8>>;

/// Starts the thread that writes to `disk`. `stamp` begins the thread's own lines, and `report` is called with the first error
/// of the disk.
///
/// # Errors
/// When there can be no thread.
pub(super) fn start(
    disk: impl Write + Send + 'static,
    stamp: impl FormatTime + Send + 'static,
    report: impl FnOnce(&str) + Send + 'static,
) -> io::Result<(Lines, QueueGuard)> {
    let write = move |lines| Writer { disk, stamp, report: Some(report), is_cut: false }.run(lines);
    let (lines, guard) = spool::start("log", LOG_QUEUE, write)?;
    Ok((Lines(lines), guard))
}

/// The way in. A line that does not fit is dropped.
#[derive(Clone, Debug)]
pub(super) struct Lines(Spool<Vec<u8>>);

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

impl Write for Lines {
    /// Takes one line, with its end.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.len(), || line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread. A disk that takes nothing costs lines, until it takes some again.
struct Writer<W, S, R> {
    disk: W,
    stamp: S,
    /// Taken at the first error.
    report: Option<R>,
    /// The last line has no end.
    is_cut: bool,
}

impl<W: Write, S: FormatTime, R: FnOnce(&str)> Writer<W, S, R> {
    fn run(mut self, mut lines: Outlet<Vec<u8>>) {
        loop {
            let next = lines.next(|| self.disk.flush());
            match next {
                Ok(Some(line)) => {
                    self.report(&mut lines);
                    if let Err(error) = self.write(&line) {
                        lines.add_lost(1);
                        if let Some(report) = self.report.take() {
                            report(&format!("the log is incomplete: {error}"));
                        }
                    }
                }
                Ok(None) => {
                    self.report(&mut lines);
                    return;
                }
                // What has been written is out of our hands.
                Err(_) => {}
            }
        }
    }

    /// Writes a line about those that were dropped, if there are any.
    fn report(&mut self, lines: &mut Outlet<Vec<u8>>) {
        let lost = lines.take_lost();
        if lost == 0 {
            return;
        }
        let mut line = String::new();
        // A string takes everything.
        let _ = self.stamp.format_time(&mut format::Writer::new(&mut line));
        line.push_str(&format!("  WARN {lost} lines were dropped: the disk was too slow\n"));
        if self.write(line.as_bytes()).is_err() {
            lines.add_lost(lost);
        }
    }

    /// Writes a whole line, after the end of one that was cut.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let end = if self.is_cut { &b"\n"[..] } else { b"" };
        for part in [end, line] {
            let mut rest = part;
            while !rest.is_empty() {
                match self.disk.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        rest = rest.get(count..).unwrap_or_default();
                        self.is_cut = !rest.is_empty();
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Bytes of memory of the lines that may wait for the disk.
const LOG_QUEUE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use super::*;

    struct NoTime;

    impl FormatTime for NoTime {
        fn format_time(&self, writer: &mut format::Writer<'_>) -> std::fmt::Result {
            writer.write_str("now s")
        }
    }

    /// A disk that reports the first write, and takes it when it may.
    struct Slow {
        begun: Sender<()>,
        may_go_on: Receiver<()>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.may_go_on.recv();
            self.text.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_bounded_memory() {
        let (begun, has_begun) = channel();
        let (release, may_go_on) = channel();
        let text = Arc::default();
        let disk = Slow { begun, may_go_on, text: Arc::clone(&text) };
        let (mut lines, guard) = start(disk, NoTime, |_| {}).unwrap();
        lines.write_all(b"first\n").unwrap();
        has_begun.recv().unwrap();
        // As long as a line can be, and as short.
        let long = [vec![b'x'; 20_000], vec![b'\n']].concat();
        for number in 0..100_000 {
            lines.write_all(if number % 2 == 0 { &long } else { b"\n" }).unwrap();
        }
        let held = lines.0.held();
        assert!(held <= LOG_QUEUE && held > LOG_QUEUE - 30_000, "{held} bytes");
        drop(release);
        drop(guard);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        let written = text.lines().filter(|line| line.is_empty() || line.starts_with('x')).count();
        let lost = format!("now s  WARN {} lines were dropped", 100_000 - written);
        assert!(text.contains(&lost), "no {lost:?} in {} bytes", text.len());
    }

    /// A disk whose writes end as listed: a number of bytes, or an error.
    struct Scripted(Vec<Option<usize>>, Arc<Mutex<Vec<u8>>>);

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let next = if self.0.is_empty() { Some(usize::MAX) } else { self.0.remove(0) };
            let count = next.ok_or(io::ErrorKind::StorageFull)?.min(bytes.len());
            self.1.lock().unwrap().write(&bytes[..count])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_cuts_or_refuses_are_reported_once_it_takes_some() {
        let text = Arc::default();
        // "one" is written, "two" is cut, "three" and the report before it are refused.
        let disk = Scripted(vec![Some(4), Some(2), None, None, None], Arc::clone(&text));
        let (mut lines, guard) = start(disk, NoTime, |_| {}).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        drop(guard);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        let report = "now s  WARN 2 lines were dropped: the disk was too slow";
        assert_eq!(text, format!("one\ntw\n{report}\nfour\n"));
    }
}
