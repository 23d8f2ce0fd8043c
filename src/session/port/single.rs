//! Port forwarding with agents up to 3.0.196.0: one connection at a time, the channel's bytes are its bytes.
//!
//! The agent connects to the destination when the session starts, and again with the first bytes after a
//! `DisconnectToPort`. It never reports that the destination has closed. For a moment after the flag it refuses bytes, and it
//! keeps those forever that it had acknowledged because they came before the flag (`processIncomingMessageBufferItems`
//! looks at no message again). So a connection's bytes wait until the flag of the one before is acknowledged, and until the
//! agent has nothing left of that one's output ([`Handover`]).

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::{Handover, Report, Traffic, WAIT};
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
    let mut seat = Seat::new(&session.live.link);
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
                None => seat.handle_drained(link),
                Some(LinkEvent::Channel(Event::Output(bytes))) => seat.handle_output(&bytes),
                Some(LinkEvent::Channel(Event::PortRefused)) => {
                    console.repeat(official::DESTINATION_FAILED);
                    console.report(&Status::DestinationRefused { destination: None });
                    // An orderly end, not a reset: there was never a destination whose data could be incomplete.
                    seat.current.take().into_iter().for_each(|refused| refused.connection.dismiss());
                }
                Some(other) => if let Some(end) = session.handle(other) { break end },
            },
            () = sleep_until(seat.handover.poll_timeout().map(Instant::from)), if !seat.is_due() => {}
            () = sleep_until(seat.gives_up_at()) => {
                tracing::warn!("closed a connection: the agent still repeats output of the one before");
                seat.current = None;
            }
            Some((number, report)) = from_connections.recv(), if seat.handover.is_done() => {
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
                seat.take(connection, link);
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
struct Seat {
    current: Option<Current>,
    /// Number of connections so far, which is the current one's.
    accepted: u64,
    /// A destination that speaks first does so before there is a client.
    early: ByteQueue,
    /// The end of the last connection at the agent.
    handover: Handover,
}

impl Seat {
    fn new(link: &Link) -> Seat {
        let handover = Handover::new(traffic(link));
        Seat { current: None, accepted: 0, early: ByteQueue::default(), handover }
    }

    /// The link's next event, or `None` when [`Seat::handle_drained`] is due. Cancel-safe.
    async fn next_event(&self, link: &mut Link, may_deliver: bool) -> Option<LinkEvent> {
        if may_deliver && self.is_due() {
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

    fn is_due(&self) -> bool {
        self.handover.is_due(Instant::now().into_std())
    }

    /// All that was sent has been acknowledged, the flag as well, and all that has come is read.
    fn handle_drained(&mut self, link: &mut Link) {
        if self.handover.handle_drained(Instant::now().into_std(), traffic(link)) {
            link.send(Input::Flag(Flag::DisconnectToPort));
        }
    }

    /// When the current connection, whose bytes may not be sent yet, has waited for as long as for a session.
    fn gives_up_at(&self) -> Option<Instant> {
        let waiting = self.current.as_ref().filter(|_| !self.handover.is_done());
        waiting.map(|waiting| waiting.begun + WAIT)
    }

    fn handle_output(&mut self, bytes: &[u8]) {
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
            self.handover.handle_flag();
        }
    }

    /// Gives the place to a new connection.
    fn take(&mut self, connection: Connection, link: &Link) {
        self.accepted += 1;
        let is_dialed = self.accepted == 1;
        if !is_dialed {
            self.handover.handle_taken(traffic(link));
        }
        let (begun, answers) = (Instant::now(), LastAnswers::on_basic());
        let current =
            self.current.insert(Current { connection, begun, must_grant: false, is_dialed, answers });
        while !self.early.is_empty() {
            self.early.take().slices().iter().for_each(|bytes| current.deliver(bytes));
        }
    }
}

/// The one connection there is.
struct Current {
    connection: Connection,
    begun: Instant,
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

fn traffic(link: &Link) -> Traffic {
    let stats = link.stats();
    let (received, early) = (stats.messages_received, link.early_bytes());
    Traffic { received, early, websockets: stats.websockets, pauses: stats.pauses }
}

/// Bytes of memory for what a destination sends before the first connection.
const MAX_EARLY: usize = 1 << 20;
