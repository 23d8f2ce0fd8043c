//! Tentative messages: whatever prefix of them the peer ignores, each frame counts once.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::epoch;
use crate::smux::*;

fn client() -> Session {
    Session::new(Config::new(Role::Client), epoch())
}

/// A server's view of `messages`, the first `ignored` of which it does not see.
fn events(messages: &[Bytes], ignored: usize) -> Vec<Event> {
    let mut server = Session::new(Config::new(Role::Server), epoch());
    let mut events = Vec::new();
    for message in &messages[ignored..] {
        server.handle_bytes(epoch(), message.clone()).unwrap();
        while let Some(event) = server.poll_event() {
            match (events.last_mut(), event) {
                (Some(Event::Data(last, all)), Event::Data(id, bytes)) if *last == id => {
                    *all = [&all[..], &bytes[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
    }
    assert_eq!(server.counters().ignored_syns, 0, "no stream is opened twice");
    events
}

#[test]
fn a_message_that_is_taken_swallows_its_repetition() {
    let mut client = client();
    let id = client.open().unwrap();
    client.send(id, b"hello").unwrap();
    let first = client.poll_tentative(1024).unwrap();
    assert_eq!(first.len(), HEADER_LEN + (HEADER_LEN + 5) + HEADER_LEN);
    assert!(client.poll_tentative(1024).is_none() && client.poll_transmit(1024).is_none());
    client.settle();
    assert!(client.has_transmit());
    let messages = [first, client.poll_transmit(1024).unwrap()];
    assert_eq!(messages[1], messages[0][..21]);
    let expected = [Event::Accepted(id), Event::Data(id, "hello".into())];
    assert_eq!(events(&messages, 0), expected);
    assert_eq!(events(&messages, 1), expected);
    client.finish(id);
    assert_eq!(client.poll_transmit(1024).unwrap().len(), HEADER_LEN);
}

/// A message that is ignored is not repeated by the next tentative one alone: it is followed by all that comes.
#[test]
fn what_does_not_fit_follows_the_repetition() {
    let mut client = client();
    let id = client.open().unwrap();
    client.send(id, &[7; 3000]).unwrap();
    let mut messages = vec![client.poll_tentative(1024).unwrap()];
    assert_eq!(messages[0].len(), 1024);
    assert!(client.poll_tentative(1024).is_none());
    messages.extend(std::iter::from_fn(|| client.poll_transmit(100)));
    let expected = [Event::Accepted(id), Event::Data(id, vec![7; 3000].into())];
    for ignored in 0..=1 {
        assert_eq!(events(&messages, ignored), expected);
    }
    assert!(client.poll_tentative(1024).is_none(), "the peer listens");
}

#[test]
fn nothing_is_tentative_after_other_messages() {
    let mut client = client();
    client.open().unwrap();
    assert!(client.poll_transmit(3).is_some());
    assert!(client.poll_tentative(1024).is_none(), "a frame has been begun");
    assert!(client.poll_transmit(1024).is_some());
    client.open().unwrap();
    assert!(client.poll_tentative(1024).is_none());
    assert!(self::client().poll_tentative(1024).is_none(), "there are no frames");
}

proptest! {
    /// Streams that are opened, fed and ended between tentative messages of any size.
    #[test]
    fn each_frame_counts_once(
        steps in vec((any::<bool>(), 0..8_usize, 0..300_usize, any::<bool>(), 0..1200_usize), 1..8),
        plain in 1..2000_usize,
    ) {
        let mut client = client();
        let (mut streams, mut messages) = (Vec::new(), Vec::new());
        for (opens, stream, length, finishes, max) in steps {
            if opens || streams.is_empty() {
                streams.push(client.open().unwrap());
            }
            let id = streams[stream % streams.len()];
            _ = client.send(id, &vec![stream as u8; length]);
            if finishes {
                client.finish(id);
            }
            messages.extend(client.poll_tentative(max));
        }
        let tentative = messages.len();
        client.settle();
        messages.extend(std::iter::from_fn(|| client.poll_transmit(plain)));
        let expected = events(&messages, 0);
        prop_assert_eq!(expected.iter().filter(|event| matches!(event, Event::Accepted(_))).count(), streams.len());
        for ignored in 1..=tentative {
            prop_assert_eq!(&events(&messages, ignored), &expected);
        }
    }
}
