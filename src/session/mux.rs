//! Port forwarding with agents after 3.0.196.0: many local connections at once, each a smux stream.
//!
//! ```text
//! local socket ⇄ connection task ⇄ Streams (smux) ⇄ Link        the first session, whose end is the end
//!                                ⇄ Streams (smux) ⇄ Link        further ones, if asked for
//! ```

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::connection::{Gauge, LocalStream};
use super::extra::{Extra, ExtraEvent, MakeGauge};
use super::listener::{AcceptPause, Listener};
use super::streams::{LaneId, Streams};
use super::{End, Session, ends_session, sleep_until};
use crate::link::LinkEvent;
use crate::notice;
use crate::process::Signal;
use crate::protocol::{Event, PortProperties};

/// Runs until the first session ends or a signal comes.
pub(super) async fn run(session: &mut Session, properties: &PortProperties) -> anyhow::Result<End> {
    let listener = match Listener::bind(properties, session.settings.local_host.as_deref()).await {
        Ok(listener) => listener,
        Err(error) => return Ok(End::NotStarted(error.to_string())),
    };
    session.console.say(&listener.notice(&session.id));
    session.console.say(notice::WAITING_FOR_CONNECTIONS);

    let (reports, mut from_connections) = mpsc::channel(REPORTS);
    let (sessions, progress) = (session.settings.sessions, Arc::new(Notify::new()));
    let make_gauge: MakeGauge = {
        let progress = progress.clone();
        Arc::new(move || Gauge::new(sessions, progress.clone()))
    };
    let keepalive_off = session.link.capabilities().smux_keepalive_off;
    let journal = session.journal.clone();
    let mut streams =
        Streams::new(keepalive_off, FIRST_LANE, reports.clone(), Arc::new(make_gauge()), journal.clone());
    let mut extras = Extras::start(session, |starter, next_lane| {
        Extra::new(starter, reports.clone(), make_gauge.clone(), journal.clone(), next_lane)
    });
    let mut accepted_any = false;
    let mut accept_pause = AcceptPause::default();
    let end = loop {
        streams.move_up(&mut session.link);
        extras.move_up();
        session.connections = Some(streams.len() + extras.len());
        session.show_connections();
        let Session { link, watch, console, .. } = session;
        let may_accept = accept_pause.is_over() && (streams.may_open() || extras.may_open());
        let timeout = [streams.next_timeout(), extras.next_timeout()].into_iter().flatten().min();
        tokio::select! {
            event = link.next(streams.has_room()) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => {
                    if let Err(error) = streams.move_down(bytes) {
                        break Err(error.into());
                    }
                }
                LinkEvent::Channel(Event::PortRefused) => console.say(notice::DESTINATION_FAILED),
                other => if let Some(end) = session.handle(other) { break Ok(end) },
            },
            event = extras.next() => match event {
                ExtraEvent::Status(text) => console.status(&text),
                ExtraEvent::PortRefused => console.say(notice::DESTINATION_FAILED),
                ExtraEvent::Progress => {}
            },
            Some(((lane, id), report)) = from_connections.recv() => {
                if let Some(streams) = extras.find(lane, &mut streams) {
                    streams.handle_report(id, report);
                }
            },
            accepted = listener.accept(), if may_accept => match accepted {
                Ok(stream) => {
                    accept_pause.handle_success();
                    if !std::mem::replace(&mut accepted_any, true) {
                        console.say(&notice::connection_accepted_mux(&session.id));
                    }
                    extras.open_least_loaded(&mut streams, stream);
                }
                Err(error) => {
                    accept_pause.handle_failure(&error).into_iter().for_each(|text| console.status(&text));
                    streams.hurry();
                    extras.hurry();
                }
            },
            () = accept_pause.wait() => {}
            // A local reader has made room: look again which sessions may be read.
            () = progress.notified() => {}
            () = sleep_until(timeout) => {
                if let Err(error) = streams.handle_timeout() {
                    break Err(error.into());
                }
                streams.notice().into_iter().for_each(|text| console.status(&text));
                extras.handle_timeout().into_iter().for_each(|text| console.status(&text));
            }
            signal = watch.recv() => match signal {
                Signal::Usr1 => session.report(),
                signal if ends_session(signal) || signal == Signal::Suspend => {
                    console.say(notice::TERMINATE_SIGNAL);
                    break Ok(End::Interrupted);
                }
                _ => {}
            },
            _ = console.drive() => {}
        }
    };
    session.further = Some(Box::pin(extras.terminate()));
    end
}

/// The further sessions behind the port.
struct Extras(Vec<Extra>);

impl Extras {
    fn start(
        session: &mut Session,
        make: impl Fn(Arc<super::extra::Starter>, Arc<AtomicU64>) -> Extra,
    ) -> Extras {
        let Some(starter) = session.starter.take().map(Arc::new) else { return Extras(Vec::new()) };
        let next_lane = Arc::new(AtomicU64::new(FIRST_LANE + 1));
        let count = session.settings.sessions.saturating_sub(1);
        Extras((0..count).map(|_| make(starter.clone(), next_lane.clone())).collect())
    }

    async fn next(&mut self) -> ExtraEvent {
        poll_fn(|cx| {
            for extra in &mut self.0 {
                if let Poll::Ready(event) = extra.poll_event(cx) {
                    // Who has spoken goes to the end, so that one busy session does not silence the others.
                    self.0.rotate_left(1);
                    return Poll::Ready(event);
                }
            }
            Poll::Pending
        })
        .await
    }

    fn move_up(&mut self) {
        self.0.iter_mut().for_each(Extra::move_up);
    }

    fn hurry(&mut self) {
        self.0.iter_mut().filter_map(Extra::streams).for_each(Streams::hurry);
    }

    fn len(&mut self) -> usize {
        self.0.iter_mut().filter_map(Extra::streams).map(|streams| streams.len()).sum()
    }

    fn may_open(&mut self) -> bool {
        self.0.iter_mut().filter_map(Extra::streams).any(|streams| streams.may_open())
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(Extra::next_timeout).min()
    }

    fn handle_timeout(&mut self) -> Vec<String> {
        let events = self.0.iter_mut().filter_map(Extra::handle_timeout);
        events
            .filter_map(|event| if let ExtraEvent::Status(text) = event { Some(text) } else { None })
            .collect()
    }

    /// The streams of `lane`, `first` being those of the first session.
    fn find<'a>(&'a mut self, lane: LaneId, first: &'a mut Streams) -> Option<&'a mut Streams> {
        if first.lane() == lane {
            return Some(first);
        }
        self.0.iter_mut().filter_map(Extra::streams).find(|streams| streams.lane() == lane)
    }

    fn open_least_loaded(&mut self, first: &mut Streams, stream: LocalStream) {
        let all = self.0.iter_mut().filter_map(Extra::streams).chain([first]);
        // Not where a local reader holds up everything, if that can be avoided.
        let load = |streams: &&mut Streams| (streams.is_held_up(), streams.len());
        if let Some(streams) = all.filter(|streams| streams.may_open()).min_by_key(load) {
            streams.open(stream);
        }
    }

    async fn terminate(self) {
        join_all(self.0.into_iter().map(Extra::terminate)).await;
    }
}

const FIRST_LANE: LaneId = 0;
/// Reports of connection tasks that wait for the loop.
const REPORTS: usize = 64;
