//! Behaviour of a channel when its websocket is lost, and after it has been closed.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{MessageType, PayloadType};
use crate::protocol::{Channel, CloseReason, Config, Event, SessionKind, Transmit};

const SECOND: Duration = Duration::from_secs(1);

fn open(now: Instant) -> Channel {
    let mut channel = Channel::new(Config::default(), 1);
    channel.handle_open(now, 0, "token");
    channel
}

fn data(sequence: i64, payload_type: PayloadType, payload: &'static [u8]) -> Bytes {
    from_agent(MessageType::OutputStreamData, sequence, payload_type, Bytes::from_static(payload))
}

fn request() -> Bytes {
    let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}"#;
    data(0, PayloadType::HandshakeRequest, request)
}

fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

/// Lets all deadlines up to `until` come.
fn pass(channel: &mut Channel, until: Instant) {
    while let Some((at, _)) = channel.poll_timeout()
        && at <= until
    {
        channel.handle_timeout(at);
        while channel.poll_transmit(at).is_some() {}
    }
    channel.handle_timeout(until);
}

#[test]
fn an_outage_before_the_first_message_does_not_use_up_the_handshake_s_time() {
    let start = Instant::now();
    let mut channel = open(start);
    pass(&mut channel, start + SECOND);
    channel.handle_lost(start + SECOND);
    let back = start + SECOND * 120;
    channel.handle_open(back, 0, "token");
    pass(&mut channel, back + SECOND);
    assert!(events(&mut channel).is_empty());
    channel.handle_frame(back + SECOND, data(0, PayloadType::Output, b"$ "));
    let events = events(&mut channel);
    assert!(matches!(events[..], [Event::Ready(SessionKind::Shell), Event::Output(_)]), "{events:?}");
}

#[test]
fn an_outage_within_the_handshake_does_not_use_up_its_time() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_frame(start + SECOND, request());
    channel.handle_lost(start + SECOND);
    let back = start + SECOND * 120;
    channel.handle_open(back, 0, "token");
    pass(&mut channel, back + SECOND * 30);
    channel.handle_frame(back + SECOND * 30, data(1, PayloadType::HandshakeComplete, b"{}"));
    let events = events(&mut channel);
    assert!(matches!(events[..], [Event::Ready(SessionKind::Shell)]), "{events:?}");
}

#[test]
fn after_an_outage_the_handshake_s_time_is_bounded_again() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_lost(start + SECOND);
    let back = start + SECOND * 120;
    channel.handle_open(back, 0, "token");
    pass(&mut channel, back + SECOND * 60);
    let closed = events(&mut channel);
    let is_timeout = |event: &Event| matches!(event, Event::Closed(CloseReason::HandshakeTimeout(_)));
    assert!(closed.iter().any(is_timeout), "{closed:?}");
}

/// The agent's first message may have been lost with the socket: it comes again, before anything is asked.
#[test]
fn after_an_outage_an_agent_has_its_time_again_before_it_is_probed() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_lost(start + SECOND);
    let back = start + SECOND * 30;
    channel.handle_open(back, 0, "token");
    channel.handle_timeout(back);
    assert!(matches!(channel.poll_transmit(back), Some(Transmit::Text(_))));
    assert_eq!(channel.poll_transmit(back), None);
    assert_eq!(channel.poll_timeout().map(|(at, _)| at), Some(back + SECOND * 2));
}

#[test]
fn a_session_that_is_closed_by_what_it_gets_hands_out_nothing_more() {
    let start = Instant::now();
    let mut channel = open(start);
    // Early ones, which are held.
    channel.handle_frame(start, data(1, PayloadType::Output, b"held"));
    channel.handle_frame(start, data(2, PayloadType::HandshakeRequest, b"{}"));
    // The end of a handshake that never began: an unknown session.
    channel.handle_frame(start, data(0, PayloadType::HandshakeComplete, b"{}"));
    let events = events(&mut channel);
    assert!(matches!(events[..], [Event::Closed(CloseReason::UnknownSession)]), "{events:?}");
    pass(&mut channel, start + SECOND * 300);
    channel.handle_frame(start + SECOND * 300, data(3, PayloadType::Output, b"late"));
    assert!(channel.poll_event().is_none() && !channel.wants_input());
    assert_eq!(channel.poll_timeout(), None);
}

#[test]
fn a_new_websocket_does_not_say_that_the_agent_is_connected() {
    let start = Instant::now();
    let mut channel = open(start);
    channel.handle_frame(start, data(0, PayloadType::Output, b"$ "));
    events(&mut channel);
    let pause =
        |sequence| from_agent(MessageType::PausePublication, sequence, PayloadType::Other(0), Bytes::new());
    channel.handle_frame(start, pause(0));
    channel.handle_timeout(start + SECOND);
    assert!(matches!(events(&mut channel)[..], [Event::Paused(true)]));
    channel.handle_lost(start + SECOND);
    channel.handle_open(start + SECOND, 0, "token");
    assert!(events(&mut channel).is_empty(), "only the websocket is back");
    channel.handle_frame(start + SECOND * 2, pause(0));
    assert!(events(&mut channel).is_empty(), "that it is away was told");
    channel.handle_frame(start + SECOND * 3, data(1, PayloadType::Output, b"$ "));
    let events = events(&mut channel);
    assert!(matches!(events[..], [Event::Paused(false), Event::Output(_)]), "{events:?}");
}
