//! Port forwarding with agents up to 3.0.196.0: one connection at a time, the channel's bytes are its bytes.
//!
//! The agent connects to the destination when the session starts, and again with the first bytes after a
//! `DisconnectToPort`. It never reports that the destination has closed. For a moment after the flag it refuses bytes, and it
//! keeps those forever that it had acknowledged because they came before the flag (`processIncomingMessageBufferItems`
//! looks at no message again). So a connection's bytes wait until the flag of the one before is acknowledged, and until the
//! agent has nothing left of that one's output ([`Handover`]). It acknowledges them before it sends output of theirs
//! (`handleStreamDataMessage`).

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
        seat.update(link);
        seat.grant(link);
        tokio::select! {
            event = seat.next_event(link, may_deliver) => match event {
                None => seat.handle_settled(link),
                Some(LinkEvent::Channel(Event::Output(bytes))) => seat.handle_output(&bytes, link),
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
                seat.take(connection);
            },
            () = accept_pause.wait() => {}
            () = sleep_until(disconnect_at) => {
                let is_answered = seat.current.as_mut().is_none_or(|current| current.is_answered(link));
                if is_answered { seat.disconnect(link) }
            }
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

    /// The link's next event, or `None` when [`Seat::handle_settled`] or [`Seat::update`] is due. Cancel-safe.
    async fn next_event(&self, link: &mut Link, may_deliver: bool) -> Option<LinkEvent> {
        let owner = self.current.as_ref().map(|current| current.output_of);
        if may_deliver && self.is_due() {
            link.next_unless(may_deliver, is_settled).await
        } else if let Some(owner @ Owner::Either { .. }) = owner
            && self.handover.is_certain(traffic(link))
        {
            // Noticed at once: a loss that follows does not matter.
            link.next_unless(may_deliver, |link| owner.is_acknowledged(link)).await
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

    /// Takes note of acknowledgements, losses and signs of life.
    fn update(&mut self, link: &mut Link) {
        let owner = self.current.as_mut().map(|current| &mut current.output_of);
        if matches!(owner, Some(Owner::Itself)) {
            return;
        }
        if let Some(at) = link.last_contact() {
            self.handover.handle_contact(at.into_std(), link.stats().websockets);
        }
        if self.handover.poll_check(Instant::now().into_std()) {
            link.check();
        }
        let traffic = traffic(link);
        match owner {
            Some(Owner::LastOne) if self.handover.handle_waiting(traffic) => {
                link.send(Input::Flag(Flag::DisconnectToPort));
            }
            Some(owner @ Owner::Either { .. })
                if owner.is_acknowledged(link) && self.handover.is_certain(traffic) =>
            {
                *owner = Owner::Itself;
                self.handover.handle_acknowledged();
            }
            _ => {}
        }
    }

    /// All that was sent has been acknowledged, the flag as well, and all that has come is read.
    fn handle_settled(&mut self, link: &mut Link) {
        if self.is_due() && self.handover.handle_drained(Instant::now().into_std(), traffic(link)) {
            link.send(Input::Flag(Flag::DisconnectToPort));
        }
    }

    /// When the current connection, whose bytes may not be sent yet, has waited for as long as for a session.
    fn gives_up_at(&self) -> Option<Instant> {
        let waiting = self.current.as_ref().filter(|_| !self.handover.is_done());
        waiting.map(|waiting| waiting.begun + WAIT)
    }

    fn handle_output(&mut self, bytes: &[u8], link: &mut Link) {
        self.update(link);
        let is_certain = || self.handover.is_certain(traffic(link));
        match &mut self.current {
            Some(current) if current.is_owner(is_certain) => current.deliver(bytes),
            Some(Current { output_of: Owner::Either { .. }, .. }) => {
                tracing::warn!(
                    "closed a connection: output after a lost websocket may be that of the one before"
                );
                self.disconnect(link);
            }
            None if self.accepted == 0 => _ = self.early.push(bytes),
            _ => tracing::debug!("dropped what the last connection left behind"),
        }
    }

    fn handle_report(&mut self, report: Report, link: &mut Link) {
        let Some(current) = &mut self.current else { return };
        match report {
            Report::Data(bytes) => {
                if current.output_of == Owner::LastOne {
                    current.output_of = Owner::Either { acknowledged: link.acknowledged() };
                }
                link.send(Input::Bytes(bytes));
                current.must_grant = true;
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
    fn take(&mut self, connection: Connection) {
        self.accepted += 1;
        let output_of = if self.accepted == 1 { Owner::Itself } else { Owner::LastOne };
        let (begun, answers) = (Instant::now(), LastAnswers::on_basic());
        let current = self.current.insert(Current {
            connection,
            begun,
            must_grant: false,
            output_of,
            answers,
            is_behind: false,
        });
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
    output_of: Owner,
    /// The end of the local input is reported to the agent when the remote has been quiet for a while, since it closes the
    /// whole connection to the destination on that.
    answers: LastAnswers,
    /// At the last look it had not taken all of the answer.
    is_behind: bool,
}

/// The connection that output belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The one before: nothing was sent that makes the agent connect to the destination again.
    LastOne,
    /// The one before or the current one, whose first bytes were sent when so many messages had been acknowledged. Without a
    /// loss since then it is the current one's.
    Either { acknowledged: i64 },
    /// The current one.
    Itself,
}

impl Owner {
    fn is_acknowledged(self, link: &Link) -> bool {
        matches!(self, Owner::Either { acknowledged } if acknowledged < link.acknowledged())
    }
}

impl Current {
    /// Returns whether output is for this connection.
    fn is_owner(&self, is_certain: impl Fn() -> bool) -> bool {
        match self.output_of {
            Owner::LastOne => false,
            Owner::Either { .. } => is_certain(),
            Owner::Itself => true,
        }
    }

    /// Returns whether the remote's quiet is the end of its answer. If not, the wait for it begins again.
    fn is_answered(&mut self, link: &Link) -> bool {
        // The request, or the answer to it, is still on its way.
        let is_under_way = !link.is_drained() || !link.is_open() || !self.connection.is_drained();
        // What a slow reader has just made room for is in the system's buffer, which the reset at the end discards.
        let is_answered = !is_under_way && !self.is_behind;
        self.is_behind = !self.connection.is_drained();
        if !is_answered {
            self.answers.restart(Instant::now());
        }
        is_answered
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.answers.handle_output(Instant::now(), bytes);
        self.connection.write(bytes);
    }
}

fn traffic(link: &Link) -> Traffic {
    let stats = link.stats();
    let (received, early) = (stats.messages_received, link.early_bytes());
    let websockets = stats.websockets + u64::from(!link.is_open());
    Traffic { received, early, websockets, pauses: stats.pauses }
}

/// Returns whether all that was sent has been acknowledged, and more could come at once if the agent had it.
fn is_settled(link: &Link) -> bool {
    link.is_drained() && link.is_open() && !link.is_paused()
}

/// Bytes of memory for what a destination sends before the first connection.
const MAX_EARLY: usize = 1 << 20;
