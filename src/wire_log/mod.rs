//! Recording a session's frames (`SSM_PLUGIN_WIRE_LOG`), to attach to a report and to play again.
//!
//! One JSON object a line. The first of a recording describes it; `from`, `kind`, `hex` and `text` are those of the
//! recorded sessions in `compat-tests/vectors`:
//!
//! ```text
//! {"recording":1,"version":"0.1.0","payloads":false}
//! {"ms":3,"from":"client","kind":"open (text frame)","text":{"TokenValue":"[redacted]", ...}}
//! {"ms":21,"from":"agent","kind":"output_stream_data","hex":"00000074..."}
//! {"ms":90,"from":"agent","kind":"output_stream_data","head":"00000074...","payload":{"length":512,"sha256":"..."}}
//! {"ms":95,"event":"lost","reason":"closed by the service"}
//! ```
//!
//! Typed and shown text is replaced by its length and digest, unless the settings ask for it; the digest is
//! left out for less than 64 bytes, which could be guessed from it. Commands, properties, keys and errors are
//! cut out of the handshake, and the service's reason out of the end. The token is never recorded. Reasons for
//! lost websockets stay: they are AWS's, the gateway's or the system's.
//!
//! A thread writes. It has a bounded queue and the session never waits for it: what does not fit is counted.

mod line;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::files;
use crate::protocol::Transmit;
use crate::spool::{self, Outlet, Spool, SpoolGuard};

/// Starts to record to the file at `path`, if there is one; with `payloads` also what was typed and shown. `report` is called
/// when the file takes no more.
///
/// # Errors
/// A sentence about a file that cannot be written. The session does not depend on it.
pub(crate) fn start(
    path: Option<&Path>,
    payloads: bool,
    report: impl FnOnce(&str) + Send + 'static,
) -> Result<Option<Guard>, String> {
    let Some(path) = path else { return Ok(None) };
    let error = |error| format!("the wire log is disabled: cannot write to {}: {error}", path.display());
    Guard::start(path, payloads, report).map(Some).map_err(error)
}

/// A recording under way, as links see it.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    shared: Arc<Shared>,
}

impl Recording {
    /// A recorder for one more connection.
    pub(crate) fn recorder(&self) -> Recorder {
        let channel = self.shared.channels.fetch_add(1, Ordering::Relaxed);
        Recorder { shared: Arc::clone(&self.shared), channel }
    }
}

/// Keeps the recording going; the rest is written when it is dropped.
#[derive(Debug)]
#[must_use = "the recording ends when this is dropped"]
pub(crate) struct Guard {
    shared: Arc<Shared>,
    _queue: SpoolGuard<Entry>,
}

impl Guard {
    fn start(path: &Path, payloads: bool, report: impl FnOnce(&str) + Send + 'static) -> io::Result<Guard> {
        // A pipe without a reader would keep us waiting.
        if path.metadata().is_ok_and(|data| !data.is_file()) {
            return Err(io::Error::other("it is not a file"));
        }
        let file = files::append_private(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let start = Instant::now();
        let writer = Writer { start, payloads, out: BufWriter::new(file), written: 0 };
        let (queue, guard) =
            spool::start("wire log", WIRE_LOG_QUEUE, move |entries| writer.run(entries, report))?;
        let shared = Arc::new(Shared { queue, start, channels: AtomicUsize::new(0) });
        Ok(Guard { shared, _queue: guard })
    }

    /// For the links that are to be recorded.
    pub(crate) fn recording(&self) -> Recording {
        Recording { shared: Arc::clone(&self.shared) }
    }
}

/// Records one connection's frames. Never waits.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    channel: usize,
}

impl Recorder {
    /// Something we send. The token of the text frame that opens a channel is left out.
    pub(crate) fn sent(&self, transmit: &Transmit) {
        match transmit {
            Transmit::Text(text) => self.line(line::opening(text)),
            Transmit::Binary(frame) => self.frame(From::Client, frame),
        }
    }

    /// A binary frame that has arrived.
    pub(crate) fn received(&self, frame: &Bytes) {
        self.frame(From::Agent, frame);
    }

    /// Copies the frame: a slice would keep the read buffer that it was cut from.
    fn frame(&self, from: From, frame: &Bytes) {
        self.push(frame.len(), || What::Frame(from, Bytes::copy_from_slice(frame)));
    }

    fn line(&self, line: Value) {
        // A value of few parts, whose memory is some times its text.
        self.push(VALUE_COST * line.to_string().len(), || What::Line(line));
    }

    /// Something that happened to the connection.
    pub(crate) fn event(&self, event: &'static str, reason: &str) {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        self.line(json!({"event": event, "reason": reason}));
    }

    /// Queues an entry with `size` bytes, if there is room.
    fn push(&self, size: usize, what: impl FnOnce() -> What) {
        let ms = ms_since(self.shared.start);
        self.shared.queue.push(size + HEADERS, || Entry { ms, channel: self.channel, what: what() });
    }
}

#[derive(Debug)]
struct Shared {
    queue: Spool<Entry>,
    start: Instant,
    /// Recorders there have been.
    channels: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    ms: u64,
    channel: usize,
    what: What,
}

/// The sender of a frame: this program, or the agent or service.
#[derive(Debug, Clone, Copy)]
enum From {
    Client,
    Agent,
}

impl From {
    fn as_str(self) -> &'static str {
        match self {
            From::Client => "client",
            From::Agent => "agent",
        }
    }
}

#[derive(Debug)]
enum What {
    Frame(From, Bytes),
    Line(Value),
}

struct Writer {
    start: Instant,
    payloads: bool,
    out: BufWriter<File>,
    written: u64,
}

impl Writer {
    /// The thread. A disk that takes no more ends the recording.
    fn run(mut self, mut entries: Outlet<Entry>, report: impl FnOnce(&str)) {
        if let Err(error) = self.write_all(&mut entries) {
            tracing::warn!(%error, "the wire log ends here");
            report(&format!("the wire log is incomplete: {error}"));
        }
    }

    fn write_all(&mut self, entries: &mut Outlet<Entry>) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        self.line(&json!({"recording": FORMAT, "version": version, "payloads": self.payloads}))?;
        while let Some(entry) = entries.next(|| self.out.flush())? {
            let mut line = match entry.what {
                What::Line(line) => line,
                What::Frame(from, frame) => line::frame(from.as_str(), frame, self.payloads),
            };
            self.losses(entries, entry.ms)?;
            line["ms"] = json!(entry.ms);
            if entry.channel > 0 {
                line["channel"] = json!(entry.channel);
            }
            self.line(&line)?;
            if self.written > MAX_RECORDING {
                self.line(&json!({"ms": entry.ms, "event": "full"}))?;
                return self.out.flush();
            }
        }
        self.losses(entries, ms_since(self.start))?;
        self.out.flush()
    }

    fn losses(&mut self, entries: &mut Outlet<Entry>, ms: u64) -> io::Result<()> {
        match entries.take_lost() {
            0 => Ok(()),
            lost => self.line(&json!({"ms": ms, "event": "not recorded", "frames": lost})),
        }
    }

    fn line(&mut self, line: &Value) -> io::Result<()> {
        let mut text = line.to_string();
        text.push('\n');
        self.written += text.len() as u64;
        self.out.write_all(text.as_bytes())
    }
}

fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The number in a recording's first line.
const FORMAT: u32 = 1;
/// Bytes of memory of what may wait for the disk.
const WIRE_LOG_QUEUE: usize = 16 << 20;
/// Memory of a frame or a line in addition to its bytes: the allocator's headers.
const HEADERS: usize = 64;
/// Memory of a line's value, as a multiple of its text.
const VALUE_COST: usize = 4;
/// Bytes after which a recording ends.
const MAX_RECORDING: u64 = 1 << 30;
/// Characters of a reason.
const MAX_REASON: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Message, MessageType, PayloadType};

    fn output(sequence: i64, payload: &'static [u8]) -> Bytes {
        let message = Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            id: uuid::Uuid::nil(),
            payload_type: PayloadType::Output,
            payload: Bytes::from_static(payload),
        };
        message.encode()
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn a_recording() {
        assert!(start(None, false, |_| {}).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wire");
        let guard = start(Some(&path), false, |_| {}).unwrap().unwrap();
        let (first, second) = (guard.recording().recorder(), guard.recording().recorder());
        first.sent(&Transmit::Text(r#"{"TokenValue":"secret","ClientVersion":"1"}"#.into()));
        first.frame(From::Agent, &output(7, b"what was shown"));
        second.event("lost", &"x".repeat(1000));
        drop(guard);
        first.frame(From::Agent, &output(8, b"after the end"));

        let lines = lines(&path);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(
            lines[0],
            json!({"recording": 1, "version": env!("CARGO_PKG_VERSION"), "payloads": false})
        );
        assert_eq!(lines[1]["text"], json!({"TokenValue": "[redacted]", "ClientVersion": "1"}));
        assert_eq!(lines[2]["payload"], json!({"length": 14}));
        assert!(lines[2]["ms"].is_u64() && lines[2].get("channel").is_none());
        assert_eq!((&lines[3]["channel"], &lines[3]["event"]), (&json!(1), &json!("lost")));
        assert_eq!(lines[3]["reason"].as_str().unwrap().len(), MAX_REASON);

        // A second recording follows in the same file, with payloads.
        let guard = start(Some(&path), true, |_| {}).unwrap().unwrap();
        let frame = output(0, b"what was shown");
        guard.recording().recorder().frame(From::Client, &frame);
        drop(guard);
        let lines = super::tests::lines(&path);
        assert_eq!(lines.len(), 6);
        assert_eq!((&lines[5]["from"], &lines[5]["hex"]), (&json!("client"), &json!(hex::encode(&frame))));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// A recorder whose entries nothing writes.
    fn unwritten() -> (Recorder, Outlet<Entry>) {
        let (queue, entries) = spool::pair(WIRE_LOG_QUEUE);
        let shared = Arc::new(Shared { queue, start: Instant::now(), channels: AtomicUsize::new(0) });
        (Recording { shared }.recorder(), entries)
    }

    #[test]
    fn more_than_fits_is_counted_and_never_waited_for() {
        let (recorder, mut entries) = unwritten();
        let frame = output(0, &[b'x'; 100_000]);
        for _ in 0..500 {
            recorder.frame(From::Client, &frame);
        }
        let held = recorder.shared.queue.held();
        assert!(held <= WIRE_LOG_QUEUE && held > WIRE_LOG_QUEUE - 101_000, "{held} bytes");
        let lost = entries.take_lost();
        recorder.frame(From::Client, &frame);
        assert!(lost > 300 && entries.take_lost() == 1, "{lost} frames");
    }

    #[test]
    fn a_queued_frame_keeps_no_read_buffer_and_a_line_counts() {
        let (recorder, _entries) = unwritten();
        let buffer = Bytes::from(vec![0; 64 << 10]);
        recorder.received(&buffer.slice(..120));
        assert!(buffer.is_unique(), "the frame was copied");
        recorder.event("lost", &"x".repeat(MAX_REASON));
        let held = recorder.shared.queue.held();
        assert!((2 * HEADERS + 120 + MAX_REASON..4_000).contains(&held), "{held} bytes");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Guard::start(dir.path(), false, |_| {}).is_err());
        assert!(Guard::start(&dir.path().join("absent/wire"), false, |_| {}).is_err());
    }
}
