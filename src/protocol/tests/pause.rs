//! Agents that are not connected for a while.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::from_agent;
use crate::protocol::message::{MessageType, PayloadType};
use crate::protocol::{Channel, Config, Event};

const MS: Duration = Duration::from_millis(1);

fn shell(now: Instant) -> Channel {
    let mut channel = Channel::new(Config::default(), 1);
    channel.handle_open(now, 0, "token");
    let prompt = from_agent(MessageType::OutputStreamData, 0, PayloadType::Output, Bytes::from_static(b"$ "));
    channel.handle_frame(now, prompt);
    events(&mut channel);
    channel
}

fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

fn control(message_type: MessageType) -> Bytes {
    from_agent(message_type, 0, PayloadType::Other(0), Bytes::from_static(b"{}"))
}

/// An agent whose shell has exited disconnects before the service closes the channel.
#[test]
fn a_pause_right_before_the_end_is_not_reported() {
    let start = Instant::now();
    let mut channel = shell(start);
    channel.handle_frame(start, control(MessageType::PausePublication));
    channel.handle_timeout(start + 50 * MS);
    channel.handle_frame(start + 50 * MS, control(MessageType::ChannelClosed));
    channel.handle_timeout(start + 2000 * MS);
    let events = events(&mut channel);
    assert!(matches!(events[..], [Event::Closed(_)]), "{events:?}");
}

#[test]
fn a_pause_is_reported_after_a_second_and_its_end_at_once() {
    let start = Instant::now();
    let mut channel = shell(start);
    channel.handle_frame(start, control(MessageType::PausePublication));
    // A repetition does not postpone it.
    channel.handle_frame(start + 900 * MS, control(MessageType::PausePublication));
    channel.handle_timeout(start + 999 * MS);
    assert!(events(&mut channel).is_empty());
    let is_due =
        |channel: &mut Channel| channel.poll_timeout().is_some_and(|(at, _)| at <= start + 1000 * MS);
    assert!(is_due(&mut channel));
    channel.handle_timeout(start + 1000 * MS);
    assert!(matches!(events(&mut channel)[..], [Event::Paused(true)]));
    channel.handle_frame(start + 1001 * MS, control(MessageType::StartPublication));
    assert!(matches!(events(&mut channel)[..], [Event::Paused(false)]));
}

#[test]
fn a_short_pause_is_not_reported_at_all() {
    let start = Instant::now();
    let mut channel = shell(start);
    channel.handle_frame(start, control(MessageType::PausePublication));
    channel.handle_frame(start + 999 * MS, control(MessageType::StartPublication));
    channel.handle_timeout(start + 5000 * MS);
    assert!(events(&mut channel).is_empty());
}
