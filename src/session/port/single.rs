//! Port forwarding with agents up to 3.0.196.0: one connection at a time, the channel's bytes are its bytes.
//!
//! The agent connects to the destination when the session starts, and again with the first bytes after a
//! `DisconnectToPort`. It never says that the destination has closed.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::Report;
use super::listen::{AcceptPause, Listener};
use super::local::Connection;
use super::local::Journal;
use super::local::{Budget, Gauge, Limits};
use super::proxy::Preface;
use super::signals::SignalEffect;
use crate::link::LinkEvent;
use crate::output::{Status, official, sentences};
use crate::protocol::{Event, Flag, Input};
use crate::queue::ByteQueue;
use crate::session::ending::End;
use crate::session::last_answers::LastAnswers;
use crate::session::live::LiveSession;
use crate::session::state::{Session, sleep_until};

/// Runs until the session ends or a signal comes.
pub(super) async fn run(session: &mut Session, listener: Listener) -> End {
    let (reports, mut from_connections) = mpsc::channel(1);
    let gauge = Gauge::new(Budget::new(Limits::new(session.settings.buffer)));
    let journal = Journal::new(&session.settings);
    let mut current: Option<Current> = None;
    let mut accepted = 0_u64;
    // A destination that speaks first does so before anybody is here to listen.
    let mut early = ByteQueue::default();
    let mut accept_pause = AcceptPause::default();
    let end = loop {
        journal.show(&mut session.console);
        let Session { live: LiveSession { link, .. }, watch, console, .. } = session;
        let may_deliver = gauge.has_room() && early.held() < MAX_EARLY;
        let disconnect_at = current.as_ref().and_then(|current| current.answers.over_at(link.stats().rtt));
        let may_ask = link.wants_input();
        if let Some(current) = current.as_mut().filter(|current| current.must_grant && may_ask) {
            current.must_grant = false;
            current.connection.grant();
        }
        tokio::select! {
            event = link.next(may_deliver) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => match &mut current {
                    Some(current) => current.deliver(&bytes),
                    None if accepted == 0 => _ = early.push(&bytes),
                    None => tracing::debug!("dropped what the last connection left behind"),
                },
                LinkEvent::Channel(Event::PortRefused) => {
                    console.repeat(official::DESTINATION_FAILED);
                    console.report(&Status::DestinationRefused { destination: None });
                    // An orderly end, not a reset: there was never a destination whose data could be incomplete.
                    current.take().into_iter().for_each(|refused| refused.connection.dismiss());
                }
                other => if let Some(end) = session.handle(other) { break end },
            },
            Some((number, report)) = from_connections.recv() => {
                let Some(reporting) = current.as_mut().filter(|_| number == accepted) else { continue };
                match report {
                    Report::Data(bytes) => {
                        link.send(Input::Bytes(bytes));
                        reporting.must_grant = true;
                    }
                    Report::HungUp => {}
                    Report::InputEnded => reporting.answers.handle_input_end(Instant::now()),
                    Report::Reset | Report::Closed => {
                        link.send(Input::Flag(Flag::DisconnectToPort));
                        current = None;
                    }
                }
            },
            accepted_now = listener.accept(), if accept_pause.is_over()
                && current.as_ref().is_none_or(Current::is_half_closed) =>
            {
                let stream = match accepted_now {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        accept_pause.handle_failure(&error).into_iter().for_each(|text| console.status(&text));
                        continue;
                    }
                };
                accept_pause.handle_success();
                if current.take().is_some() {
                    link.send(Input::Flag(Flag::DisconnectToPort));
                }
                if accepted == 0 {
                    console.print(&official::connection_accepted_basic(&session.live.id));
                }
                accepted += 1;
                let entry = journal.open(&stream, None);
                let connection = Connection::start(stream, Preface::default(), accepted, reports.clone(), entry);
                connection.join(&gauge);
                let mut new = Current { connection, must_grant: false, answers: LastAnswers::on_basic() };
                while !early.is_empty() {
                    early.take().slices().iter().for_each(|bytes| new.deliver(bytes));
                }
                current = Some(new);
            },
            () = accept_pause.wait() => {}
            () = sleep_until(disconnect_at) => match &mut current {
                // The request, or the answer to it, is still on its way.
                Some(current) if !link.is_drained() || !link.is_open() => current.answers.restart(Instant::now()),
                _ => {
                    link.send(Input::Flag(Flag::DisconnectToPort));
                    current = None;
                }
            },
            () = gauge.progress(), if !gauge.has_room() => {}
            signal = watch.recv() => match SignalEffect::of(signal, console) {
                SignalEffect::Report => {
                    let count = usize::from(current.is_some());
                    let line = sentences::report(&session.live.id, link.is_open(), &link.stats(), Some(count));
                    console.report_failure(&line);
                }
                SignalEffect::End => break End::Interrupted,
                SignalEffect::Nothing => {}
            },
            _ = console.drive() => {}
        }
    };
    drop(current);
    journal.show(&mut session.console);
    end
}

/// The one connection there is.
struct Current {
    connection: Connection,
    /// Its next chunk is not requested yet.
    must_grant: bool,
    /// The end of the local input is reported to the agent when the remote has been quiet for a while, since it closes the
    /// whole connection to the destination on that.
    answers: LastAnswers,
}

impl Current {
    fn deliver(&mut self, bytes: &[u8]) {
        self.answers.handle_output(Instant::now(), bytes);
        self.connection.write(bytes);
    }

    /// Returns whether somebody who waits in the listener may have its place.
    fn is_half_closed(&self) -> bool {
        self.answers.has_input_ended()
    }
}

/// Bytes of memory for what a destination sends before the first connection.
const MAX_EARLY: usize = 1 << 20;
