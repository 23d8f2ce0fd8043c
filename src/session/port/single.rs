//! Port forwarding with agents up to 3.0.196.0: one connection at a time, the channel's bytes are its bytes.
//!
//! The agent connects to the destination when the session starts, and again with the first bytes after a
//! `DisconnectToPort`. It never reports that the destination has closed. For a moment after the flag it refuses bytes, and it
//! keeps those forever that it had acknowledged because they came before the flag (`processIncomingMessageBufferItems`
//! looks at no message again). So a connection's bytes wait until the flag of the one before is acknowledged. If the link was
//! lost since the connection before began, the agent may still resend output of that one: then they wait until it is quiet.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::Report;
use super::listen::{AcceptPause, Listener};
use super::local::Connection;
use super::local::Journal;
use super::local::{Budget, Gauge, Limits};
use super::proxy::Preface;
use super::signals::SignalEffect;
use crate::link::{Link, LinkEvent};
use crate::output::{Status, official, sentences};
use crate::protocol::{Event, Flag, Input};
use crate::queue::ByteQueue;
use crate::session::ending::End;
use crate::session::last_answers::LastAnswers;
use crate::session::live::LiveSession;
use crate::session::state::Session;
use crate::session::timer::sleep_until;

/// Runs until the session ends or a signal comes.
pub(super) async fn run(session: &mut Session, listener: Listener) -> End {
    let (reports, mut from_connections) = mpsc::channel(1);
    let gauge = Gauge::new(Budget::new(Limits::new(session.settings.buffer)));
    let journal = Journal::new(session.settings.shows_connections());
    let mut seat = Seat::default();
    let mut accept_pause = AcceptPause::default();
    let end = loop {
        journal.show(&mut session.console);
        let Session { live: LiveSession { link, .. }, watch, console, .. } = session;
        let may_deliver = gauge.has_room() && seat.early.held() < MAX_EARLY;
        let disconnect_at =
            seat.current.as_ref().and_then(|current| current.answers.over_at(link.stats().rtt));
        seat.grant(link);
        tokio::select! {
            event = seat.next_event(link, may_deliver) => match event {
                None => seat.handle_acknowledged(Instant::now()),
                Some(LinkEvent::Channel(Event::Output(bytes))) => seat.handle_output(Instant::now(), &bytes),
                Some(LinkEvent::Channel(Event::PortRefused)) => {
                    console.repeat(official::DESTINATION_FAILED);
                    console.report(&Status::DestinationRefused { destination: None });
                    // An orderly end, not a reset: there was never a destination whose data could be incomplete.
                    seat.current.take().into_iter().for_each(|refused| refused.connection.dismiss());
                }
                Some(other) => {
                    seat.was_lost |= matches!(other, LinkEvent::Lost(_));
                    if let Some(end) = session.handle(other) { break end }
                }
            },
            () = sleep_until(seat.quiet_at()) => seat.handle_quiet(),
            Some((number, report)) = from_connections.recv(), if seat.handover == Handover::Done => {
                if number == seat.accepted {
                    seat.handle_report(report, link);
                }
            },
            accepted = listener.accept(), if accept_pause.is_over() && seat.is_free() => {
                let stream = match accepted {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        accept_pause.handle_failure(&error).into_iter().for_each(|text| console.status(&text));
                        continue;
                    }
                };
                accept_pause.handle_success();
                seat.disconnect(link);
                if seat.accepted == 0 {
                    console.print(&official::connection_accepted_basic(&session.live.id));
                }
                let entry = journal.open(&stream, None);
                let number = seat.accepted + 1;
                let connection = Connection::start(stream, Preface::default(), number, reports.clone(), entry);
                connection.join(&gauge);
                seat.take(connection);
            },
            () = accept_pause.wait() => {}
            () = sleep_until(disconnect_at) => match &mut seat.current {
                // The request, or the answer to it, is still on its way.
                Some(current) if !link.is_drained() || !link.is_open() || !current.connection.is_drained() => {
                    current.answers.restart(Instant::now());
                }
                _ => seat.disconnect(link),
            },
            () = gauge.progress(), if !gauge.has_room() => {}
            signal = watch.recv() => match SignalEffect::of(signal, console) {
                SignalEffect::Report => {
                    let count = usize::from(seat.current.is_some());
                    let line = sentences::report(&session.live.id, link.is_open(), &link.stats(), Some(count));
                    console.report_failure(&line);
                }
                SignalEffect::End => break End::Interrupted,
                SignalEffect::Nothing => {}
            },
            _ = console.drive() => {}
        }
    };
    drop(seat);
    journal.show(&mut session.console);
    end
}

/// The place of the one connection that the agent carries.
#[derive(Default)]
struct Seat {
    current: Option<Current>,
    /// Number of connections so far, which is the current one's.
    accepted: u64,
    /// A destination that speaks first does so before there is a client.
    early: ByteQueue,
    /// The end of the last connection at the agent.
    handover: Handover,
    /// The link was lost since the agent was last known to have nothing to resend.
    was_lost: bool,
}

/// Steps after the end of a connection. The next one's bytes are sent when it is done.
#[derive(Default, PartialEq, Eq)]
enum Handover {
    #[default]
    Done,
    /// The flag is not acknowledged yet.
    Flagged,
    /// The agent may resend output of the last connection. Done at that time if nothing comes.
    Quieting(Instant),
}

impl Seat {
    /// The link's next event, or `None` when the end of the last connection has been acknowledged. Cancel-safe.
    async fn next_event(&self, link: &mut Link, may_deliver: bool) -> Option<LinkEvent> {
        if self.handover == Handover::Flagged {
            link.next_unless_drained(may_deliver).await
        } else {
            Some(link.next(may_deliver).await)
        }
    }

    /// Asks the current connection for its next chunk, if that can be sent.
    fn grant(&mut self, link: &Link) {
        if let Some(current) =
            self.current.as_mut().filter(|current| current.must_grant && link.wants_input())
        {
            current.must_grant = false;
            current.connection.grant();
        }
    }

    /// All that was sent has been acknowledged, the flag as well.
    fn handle_acknowledged(&mut self, now: Instant) {
        self.handover = if self.was_lost { Handover::Quieting(now + RESENT) } else { Handover::Done };
    }

    fn quiet_at(&self) -> Option<Instant> {
        match self.handover {
            Handover::Quieting(at) => Some(at),
            Handover::Done | Handover::Flagged => None,
        }
    }

    fn handle_quiet(&mut self) {
        self.handover = Handover::Done;
        self.was_lost = false;
    }

    fn handle_output(&mut self, now: Instant, bytes: &[u8]) {
        if let Handover::Quieting(at) = &mut self.handover {
            *at = now + RESENT;
        }
        match &mut self.current {
            Some(current) if current.is_dialed => current.deliver(bytes),
            None if self.accepted == 0 => _ = self.early.push(bytes),
            _ => tracing::debug!("dropped what the last connection left behind"),
        }
    }

    fn handle_report(&mut self, report: Report, link: &mut Link) {
        let Some(current) = &mut self.current else { return };
        match report {
            Report::Data(bytes) => {
                link.send(Input::Bytes(bytes));
                current.must_grant = true;
                current.is_dialed = true;
            }
            Report::HungUp => {}
            Report::InputEnded => current.answers.handle_input_end(Instant::now()),
            Report::Reset | Report::Closed => self.disconnect(link),
        }
    }

    /// Returns whether a client that waits in the listener may have the place.
    fn is_free(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.answers.has_input_ended())
    }

    /// Ends the current connection, here and at the agent.
    fn disconnect(&mut self, link: &mut Link) {
        if self.current.take().is_some() {
            link.send(Input::Flag(Flag::DisconnectToPort));
            self.handover = Handover::Flagged;
        }
    }

    /// Gives the place to a new connection.
    fn take(&mut self, connection: Connection) {
        self.accepted += 1;
        let (is_dialed, answers) = (self.accepted == 1, LastAnswers::on_basic());
        let current = self.current.insert(Current { connection, must_grant: false, is_dialed, answers });
        while !self.early.is_empty() {
            self.early.take().slices().iter().for_each(|bytes| current.deliver(bytes));
        }
    }
}

/// The one connection there is.
struct Current {
    connection: Connection,
    /// Its next chunk is not requested yet.
    must_grant: bool,
    /// The agent has connected to the destination for it, or will with what was sent. Until then output is that of the
    /// connection before.
    is_dialed: bool,
    /// The end of the local input is reported to the agent when the remote has been quiet for a while, since it closes the
    /// whole connection to the destination on that.
    answers: LastAnswers,
}

impl Current {
    fn deliver(&mut self, bytes: &[u8]) {
        self.answers.handle_output(Instant::now(), bytes);
        self.connection.write(bytes);
    }
}

/// Time in which an agent resends its oldest message: its longest timeout is a second, its timer ticks each 100 ms
/// (PROTOCOL.md 3), and the message has a way to go.
const RESENT: Duration = Duration::from_millis(1500);
/// Bytes of memory for what a destination sends before the first connection.
const MAX_EARLY: usize = 1 << 20;
