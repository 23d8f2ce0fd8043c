//! One session: its tokens, its client, its agent and what passed between them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::agent::{AgentSpec, Counters, FromGateway};
use crate::config::{Config, Cut, Way};
use crate::frame::{self, Kind};
use crate::meter::Meter;
use crate::report::{AgentReport, OpenReport, SessionReport, SessionState};

/// Token and URL for opening a session's data channel.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub session_id: String,
    pub token: String,
    pub url: String,
}

/// One session.
pub(crate) struct Session {
    pub id: String,
    pub target: String,
    pub document: String,
    pub to_agent: mpsc::Sender<FromGateway>,
    pub counters: Arc<Counters>,
    /// Turns true when the session ends.
    pub over: watch::Sender<bool>,
    /// Until when no frame is carried: up, down.
    pub stalls: watch::Sender<[Option<Instant>; 2]>,
    limits: [Option<u32>; 2],
    keep_tokens: bool,
    keep_urls: bool,
    closed_payload_type: u32,
    started: Instant,
    inner: Mutex<Inner>,
}

/// A client that has been let in.
pub(crate) struct Attached {
    /// Tells this client from earlier and later ones.
    pub number: u64,
    /// Frames for it.
    pub frames: mpsc::Receiver<Bytes>,
    /// When and how to throw it out.
    pub kill: mpsc::Receiver<Cut>,
    /// The agent to start, with the first client.
    pub agent: Option<(AgentSpec, mpsc::Receiver<FromGateway>)>,
}

#[derive(Default)]
struct Inner {
    report: SessionReport,
    up: Meter,
    down: Meter,
    tokens: Vec<String>,
    cells: Vec<String>,
    agent: Option<(AgentSpec, mpsc::Receiver<FromGateway>)>,
    client: Option<Client>,
    clients: u64,
}

struct Client {
    number: u64,
    frames: mpsc::Sender<Bytes>,
    kill: mpsc::Sender<Cut>,
}

impl Session {
    /// A session that has not been opened yet.
    pub fn new(spec: AgentSpec, document: &str, config: &Config) -> Session {
        let (to_agent, inbound) = mpsc::channel(TO_AGENT);
        let down_limit = if spec.options.pacing { config.message_limit } else { None };
        Session {
            id: spec.session_id.clone(),
            target: spec.target_id.clone(),
            document: document.to_owned(),
            to_agent,
            counters: Arc::default(),
            over: watch::Sender::new(false),
            stalls: watch::Sender::new([None, None]),
            limits: [config.message_limit, down_limit],
            keep_tokens: !config.refuse_old_tokens,
            keep_urls: !config.refuse_old_urls,
            closed_payload_type: if config.closed_payload_type_261 { 261 } else { 0 },
            started: Instant::now(),
            inner: Mutex::new(Inner { agent: Some((spec, inbound)), ..Inner::default() }),
        }
    }

    /// A new token and a new cell.
    pub fn renew(&self, stream_base: &str, first: bool) -> Opening {
        let mut inner = self.lock();
        if !first && !self.keep_tokens {
            inner.tokens.clear();
        }
        if !first && !self.keep_urls {
            inner.cells.clear();
        }
        let token = token();
        let cell = format!("AA{}", random_text(20));
        let url =
            format!("{stream_base}/v1/data-channel/{}?role=publish_subscribe&cell-number={cell}", self.id);
        inner.tokens.push(token.clone());
        inner.cells.push(cell);
        Opening { session_id: self.id.clone(), token, url }
    }

    /// Returns whether the stream URL's cell is one of this session's.
    pub fn knows_cell(&self, cell: &str) -> bool {
        self.lock().cells.iter().any(|c| c == cell)
    }

    /// Returns whether the token opens this session.
    pub fn knows_token(&self, token: &str) -> bool {
        self.lock().tokens.iter().any(|t| t == token)
    }

    /// Lets a client in, instead of the one before it. `None` when the session is over.
    pub fn attach(&self) -> Option<Attached> {
        let mut inner = self.lock();
        if inner.report.state == SessionState::Ended {
            return None;
        }
        if let Some(old) = inner.client.take() {
            let _ = old.kill.try_send(Cut::Close);
        }
        inner.clients += 1;
        inner.report.state = SessionState::Connected;
        let number = inner.clients;
        let (frames_in, frames) = mpsc::channel(TO_CLIENT);
        let (kill_in, kill) = mpsc::channel(1);
        inner.client = Some(Client { number, frames: frames_in, kill: kill_in });
        Some(Attached { number, frames, kill, agent: inner.agent.take() })
    }

    /// Takes note that a client's connection is gone; false when another one has replaced it.
    pub fn detach(&self, number: u64) -> bool {
        let mut inner = self.lock();
        if inner.client.as_ref().is_none_or(|c| c.number != number) {
            return false;
        }
        inner.client = None;
        if inner.report.state == SessionState::Connected {
            inner.report.state = SessionState::Disconnected;
        }
        true
    }

    /// Counts a frame; `Some` is what it is, unless it cannot be read. The flag: the limit is exceeded now.
    pub fn record(&self, way: Way, frame: &[u8]) -> (Option<Kind>, bool) {
        let Some(peek) = frame::peek(frame) else { return (None, false) };
        let now = Instant::now();
        let mut inner = self.lock();
        let (meter, limit) = match way {
            Way::Up => (&mut inner.up, self.limits[0]),
            Way::Down | Way::Both => (&mut inner.down, self.limits[1]),
        };
        meter.record(peek, now);
        let exceeded = limit.is_some_and(|limit| meter.exceeds(limit)) && !inner.report.limit_exceeded;
        if exceeded {
            inner.report.limit_exceeded = true;
        }
        (Some(peek.kind), exceeded)
    }

    /// Notes a frame the link has lost.
    pub fn lost(&self, way: Way) {
        let mut inner = self.lock();
        let meter = if way == Way::Up { &mut inner.up } else { &mut inner.down };
        meter.traffic.lost += 1;
    }

    /// Hands a frame to the client, when there is one; waits for it to take it.
    pub async fn deliver(&self, frame: Bytes) {
        let frames = self.lock().client.as_ref().map(|c| c.frames.clone());
        let taken = match frames {
            Some(frames) => frames.send(frame).await.is_ok(),
            None => false,
        };
        if !taken {
            self.lock().down.traffic.dropped += 1;
        }
    }

    /// Throws the client out.
    pub fn cut(&self, cut: Cut) {
        if let Some(client) = &self.lock().client {
            let _ = client.kill.try_send(cut);
        }
    }

    /// Carries no frame one way, or both, for a while.
    pub fn stall(&self, way: Way, time: Duration) {
        let until = Some(Instant::now() + time);
        self.stalls.send_modify(|[up, down]| {
            if way != Way::Down {
                *up = until;
            }
            if way != Way::Up {
                *down = until;
            }
        });
    }

    /// The service's answer to too many messages: the websocket is closed (which pauses the agent), and soon the
    /// session ends.
    pub fn exceed(self: &Arc<Self>) {
        info!(session = self.id, "message limit exceeded");
        self.cut(Cut::Close);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(SWIFT_END).await;
            session.end("", false).await;
        });
    }

    /// Ends the session, once: stops the agent and tells the client.
    pub async fn end(&self, output: &str, terminated: bool) {
        {
            let mut inner = self.lock();
            if inner.report.state == SessionState::Ended {
                return;
            }
            inner.report.state = SessionState::Ended;
            inner.report.terminated = terminated;
            output.clone_into(&mut inner.report.output);
            inner.agent = None;
        }
        self.over.send_replace(true);
        self.log();
        self.deliver(self.closed_frame()).await;
    }

    /// This session's `channel_closed`.
    pub fn closed_frame(&self) -> Bytes {
        frame::channel_closed(&self.id, &self.lock().report.output, self.closed_payload_type)
    }

    /// Changes the report.
    pub fn note(&self, change: impl FnOnce(&mut SessionReport)) {
        change(&mut self.lock().report);
    }

    /// Notes a data channel that was asked for.
    pub fn note_open(&self, open: OpenReport) {
        let mut inner = self.lock();
        if inner.report.opens.len() < MOST_OPENS {
            inner.report.opens.push(open);
        }
    }

    /// State of the session.
    pub fn state(&self) -> SessionState {
        self.lock().report.state
    }

    /// All that is known.
    pub fn report(&self) -> SessionReport {
        let inner = self.lock();
        let agent = self.counters.snapshot();
        SessionReport {
            id: self.id.clone(),
            target: self.target.clone(),
            document: self.document.clone(),
            up: inner.up.traffic.clone(),
            down: inner.down.traffic.clone(),
            agent: AgentReport {
                messages_up: agent.messages_up,
                bytes_up: agent.bytes_up,
                messages_down: agent.messages_down,
                bytes_down: agent.bytes_down,
                duplicates_received: agent.duplicates_received,
                early_received: agent.early_received,
                bad_received: agent.bad_received,
                resends_sent: agent.resends_sent,
                acks_sent: agent.acks_sent,
                acks_received: agent.acks_received,
            },
            ..inner.report.clone()
        }
    }

    fn log(&self) {
        let report = self.report();
        info!(
            session = self.id,
            document = self.document,
            seconds = self.started.elapsed().as_secs_f64(),
            opens = report.opens.len(),
            resumes = report.resumes,
            terminated = report.terminated,
            limit_exceeded = report.limit_exceeded,
            up = ?report.up,
            down = ?report.down,
            "session ended"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long and as opaque as the real ones.
fn token() -> String {
    format!("AAEAA{}==", random_text(420))
}

fn random_text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// Bound of the frames waiting for the agent.
const TO_AGENT: usize = 64;

/// Bound of the frames waiting for the client's socket.
const TO_CLIENT: usize = 64;

/// Bound of the opens remembered for a report.
const MOST_OPENS: usize = 10_000;

/// From the cut for too many messages to the session's end ("swift", by Cyberax/gimlet's account).
const SWIFT_END: Duration = Duration::from_secs(1);
