use std::time::Duration;

use super::*;
use crate::smux::frame::Header;
use crate::smux::tests::epoch;
use crate::smux::{FrameError, HEADER_LEN, KeepAlive};

const MESSAGE: usize = 1024;

fn session(role: Role) -> Session {
    Session::new(Config::new(role), epoch())
}

/// A client and a server with one stream that both know.
fn pair() -> (Session, Session, StreamId) {
    let (mut client, mut server) = (session(Role::Client), session(Role::Server));
    let id = client.open().unwrap();
    carry(&mut client, &mut server);
    assert_eq!(events(&mut server), [Event::Accepted(id)]);
    (client, server, id)
}

fn carry(from: &mut Session, to: &mut Session) {
    while let Some(bytes) = from.poll_transmit(MESSAGE) {
        to.handle_bytes(epoch(), bytes).unwrap();
    }
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// The frames of `bytes`, which must end at the end of one.
fn frames(bytes: impl Into<Bytes>) -> Vec<Frame> {
    let (mut decoder, mut bytes) = (Decoder::default(), bytes.into());
    std::iter::from_fn(|| decoder.next(&mut bytes).unwrap()).collect()
}

fn all(session: &mut Session) -> Vec<u8> {
    std::iter::from_fn(|| session.poll_transmit(MESSAGE)).flatten().collect()
}

fn fill(session: &mut Session, id: StreamId) {
    let room = session.send_capacity(id);
    session.send(id, &vec![id.get() as u8; room]).unwrap();
}

fn data(id: StreamId, bytes: &'static [u8]) -> Event {
    Event::Data(id, Bytes::from_static(bytes))
}

#[test]
fn a_short_stream_fits_one_message() {
    let mut client = session(Role::Client);
    let id = client.open().unwrap();
    client.send(id, b"h").unwrap();
    client.send(id, b"i").unwrap();
    client.finish(id);
    assert_eq!(client.buffered_out(), 2);
    let expected =
        b"\x01\x00\x00\x00\x03\x00\x00\x00\x01\x02\x02\x00\x03\x00\x00\x00hi\x01\x01\x00\x00\x03\x00\x00\x00";
    assert_eq!(client.poll_transmit(MESSAGE).as_deref(), Some(&expected[..]));
    assert_eq!(client.poll_transmit(MESSAGE), None);
    assert!(!client.has_transmit());
    assert_eq!(client.buffered_out(), 0);
    assert_eq!(client.open().unwrap().get(), 5);
}

#[test]
fn ids_do_not_wrap_around() {
    let mut client = session(Role::Client);
    client.next_id = Some(u32::MAX);
    assert_eq!(client.open().unwrap().get(), u32::MAX);
    assert_eq!(client.open(), Err(OpenError::IdsExhausted));
    assert_eq!(client.stream_count(), 1);
}

#[test]
fn streams_are_bounded_until_they_are_over() {
    let mut client = Session::new(Config { max_streams: 1, ..Config::new(Role::Client) }, epoch());
    let mut server = session(Role::Server);
    let id = client.open().unwrap();
    assert_eq!(client.open(), Err(OpenError::TooManyStreams(1)));
    client.finish(id);
    carry(&mut client, &mut server);
    assert_eq!(client.open(), Err(OpenError::TooManyStreams(1)), "the peer has not finished");
    server.finish(id);
    carry(&mut server, &mut client);
    assert_eq!(events(&mut client), [Event::Fin(id)]);
    assert!(client.open().is_ok());
}

#[test]
fn a_queue_takes_no_more_than_its_capacity() {
    let mut client = Session::new(Config { send_buffer: 10, ..Config::new(Role::Client) }, epoch());
    let id = client.open().unwrap();
    client.send(id, b"12345678").unwrap();
    assert_eq!(client.send_capacity(id), 2);
    assert_eq!(client.send(id, b"9ab"), Err(SendError::Full { id, capacity: 2, length: 3 }));
    assert_eq!(client.buffered_out(), 8);
    client.send(id, b"9a").unwrap();
    assert_eq!(client.send_capacity(id), 0);
    assert!(client.poll_transmit(8 + 8 + 4).is_some());
    assert_eq!(client.send_capacity(id), 4, "what has been handed out makes room");
    client.finish(id);
    assert_eq!(client.send_capacity(id), 0);
    assert_eq!(client.send(id, b"x"), Err(SendError::NotOpen(id)));
    assert_eq!(client.send(StreamId(99), b"x"), Err(SendError::NotOpen(StreamId(99))));
}

#[test]
fn messages_are_full_across_streams() {
    let mut client = session(Role::Client);
    for length in [1, 700, 3000, 5, 4088, 4089] {
        let id = client.open().unwrap();
        client.send(id, &vec![0; length]).unwrap();
        client.finish(id);
    }
    let lengths: Vec<_> = std::iter::from_fn(|| client.poll_transmit(MESSAGE)).map(|m| m.len()).collect();
    let (last, full) = lengths.split_last().unwrap();
    assert!(full.iter().all(|&length| length == MESSAGE), "{lengths:?}");
    assert!(*last > 0 && full.len() > 10);
}

#[test]
fn a_bulk_frame_is_four_messages() {
    let (mut client, _, id) = pair();
    fill(&mut client, id);
    for _ in 0..4 {
        let message = client.poll_transmit(MESSAGE).unwrap();
        assert_eq!(message[..8], Header::Push(id, 4088).encode());
        for _ in 1..4 {
            assert_eq!(client.poll_transmit(MESSAGE).unwrap()[..], [id.get() as u8; MESSAGE]);
        }
    }
}

#[test]
fn a_small_write_waits_for_no_more_than_the_frame_begun() {
    let mut client = session(Role::Client);
    let bulk: Vec<_> = (0..5).map(|_| client.open().unwrap()).collect();
    let quiet = client.open().unwrap();
    let _ = all(&mut client);
    for offset in (1..20_000).step_by(997) {
        bulk.iter().for_each(|&id| fill(&mut client, id));
        let first_turns = bulk.len() * (4088 + HEADER_LEN);
        let _ = client.poll_transmit(first_turns + offset);
        let begun = client.frame.payload().map_or(0, |(_, left)| left) + client.frame.header_left();
        client.send(quiet, b"key").unwrap();
        let next = client.poll_transmit(begun + HEADER_LEN + 3).unwrap();
        let expected = [&Header::Push(quiet, 3).encode()[..], b"key"].concat();
        assert_eq!(next[begun..], expected, "after {offset} bytes");
        let _ = all(&mut client);
    }
}

#[test]
fn bulk_streams_take_equal_turns() {
    let mut client = session(Role::Client);
    let ids: Vec<_> = (0..7).map(|_| client.open().unwrap()).collect();
    let _ = all(&mut client);
    let mut wire = Vec::new();
    for _ in 0..500 {
        ids.iter().for_each(|&id| fill(&mut client, id));
        wire.extend_from_slice(&client.poll_transmit(MESSAGE).unwrap());
    }
    let mut sent = BTreeMap::<_, usize>::new();
    for frame in frames(wire) {
        let Frame::Push(id, part) = frame else { panic!("only data is sent: {frame:?}") };
        *sent.entry(id).or_default() += part.len();
    }
    let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
    assert_eq!(sent.len(), ids.len());
    assert!(most - least <= 4088, "{sent:?}");
}

#[test]
fn streams_that_refill_after_each_turn_do_not_starve_others() {
    let mut client = session(Role::Client);
    let bulk = client.open().unwrap();
    let eager = [client.open().unwrap(), client.open().unwrap()];
    let _ = all(&mut client);
    // The two write in turn, each time as much as is sent, and each when the other has just been served.
    let (piece, rounds) = ([0; 50], 1000);
    let room = HEADER_LEN + piece.len();
    let mut bulk_bytes = 0;
    for round in 0..rounds {
        fill(&mut client, bulk);
        let id = eager[round % 2];
        if client.streams[&id].queued() == 0 {
            client.send(id, &piece).unwrap();
        }
        let _ = client.poll_transmit(room);
        bulk_bytes += client.send_capacity(bulk);
    }
    assert!(bulk_bytes > rounds * room / 2, "{bulk_bytes} of {}", rounds * room);
}

#[test]
fn after_finish_data_still_arrives() {
    let (mut client, mut server, id) = pair();
    client.send(id, b"question").unwrap();
    client.finish(id);
    carry(&mut client, &mut server);
    assert_eq!(events(&mut server), [data(id, b"question"), Event::Fin(id)]);
    server.send(id, b"answer").unwrap();
    server.finish(id);
    carry(&mut server, &mut client);
    assert_eq!(events(&mut client), [data(id, b"answer"), Event::Fin(id)]);
    assert_eq!((client.stream_count(), server.stream_count()), (0, 0));
    assert_eq!(client.counters(), Counters::default());
}

#[test]
fn after_the_peers_fin_data_can_be_sent() {
    let (mut client, mut server, id) = pair();
    server.finish(id);
    carry(&mut server, &mut client);
    assert_eq!(events(&mut client), [Event::Fin(id)]);
    client.send(id, b"rest").unwrap();
    client.finish(id);
    carry(&mut client, &mut server);
    assert_eq!(events(&mut server), [data(id, b"rest"), Event::Fin(id)]);
    assert_eq!((client.stream_count(), server.stream_count()), (0, 0));
}

#[test]
fn close_sends_the_queue_and_ends_the_events() {
    let (mut client, mut server, id) = pair();
    server.send(id, b"undelivered").unwrap();
    carry(&mut server, &mut client);
    client.send(id, b"last words").unwrap();
    client.close(id);
    client.close(id);
    assert_eq!(events(&mut client), []);
    carry(&mut client, &mut server);
    assert_eq!(events(&mut server), [data(id, b"last words"), Event::Fin(id)]);
    assert_eq!(client.stream_count(), 0);
    server.send(id, b"late").unwrap();
    server.finish(id);
    carry(&mut server, &mut client);
    assert_eq!(events(&mut client), []);
    assert_eq!(client.counters(), Counters { dropped_frames: 2, dropped_bytes: 4, ignored_syns: 0 });
}

#[test]
fn close_after_both_fins_drops_what_was_not_polled() {
    let (mut client, mut server, id) = pair();
    client.finish(id);
    carry(&mut client, &mut server);
    server.send(id, b"answer").unwrap();
    server.finish(id);
    carry(&mut server, &mut client);
    assert_eq!(client.stream_count(), 0);
    client.reset(id);
    assert_eq!(events(&mut client), []);
}

#[test]
fn reset_completes_the_frame_begun_and_drops_the_rest() {
    let (mut client, _, id) = pair();
    fill(&mut client, id);
    let begun = client.poll_transmit(100).unwrap();
    client.reset(id);
    assert_eq!(client.buffered_out(), 4088 - 92);
    let wire: Vec<u8> = begun.into_iter().chain(all(&mut client)).collect();
    assert_eq!(frames(wire), [Frame::Push(id, vec![3; 4088].into()), Frame::Fin(id)]);
    assert_eq!((client.stream_count(), client.buffered_out()), (0, 0));
}

#[test]
fn reset_of_a_stream_that_was_not_announced_leaves_no_trace() {
    let mut client = session(Role::Client);
    let id = client.open().unwrap();
    client.send(id, b"never sent").unwrap();
    client.reset(id);
    assert!(!client.has_transmit());
    assert_eq!(client.poll_transmit(MESSAGE), None);
    assert_eq!((client.stream_count(), client.buffered_out()), (0, 0));
}

#[test]
fn frames_of_unknown_streams_are_counted_and_dropped() {
    let (mut client, _, id) = pair();
    let strange = StreamId(44);
    let mut wire = Vec::new();
    for header in
        [Header::Syn(strange), Header::Syn(id), Header::Fin(strange), Header::Nop, Header::Push(strange, 3)]
    {
        wire.extend_from_slice(&header.encode());
    }
    wire.extend_from_slice(b"abc");
    wire.extend_from_slice(&Header::Fin(id).encode());
    wire.extend_from_slice(&Header::Fin(id).encode());
    client.handle_bytes(epoch(), wire.into()).unwrap();
    assert_eq!(events(&mut client), [Event::Fin(id)]);
    assert_eq!(client.counters(), Counters { ignored_syns: 2, dropped_frames: 3, dropped_bytes: 3 });
    assert_eq!(client.stream_count(), 1);
}

#[test]
fn a_server_bounds_what_it_accepts() {
    let mut server = Session::new(Config { max_streams: 3, ..Config::new(Role::Server) }, epoch());
    let wire: Vec<u8> = (0..100).flat_map(|id| Header::Syn(StreamId(id)).encode()).collect();
    server.handle_bytes(epoch(), wire.into()).unwrap();
    assert_eq!(events(&mut server), [1, 2, 3].map(|id| Event::Accepted(StreamId(id))));
    assert_eq!(server.counters().ignored_syns, 97);
}

#[test]
fn what_is_not_smux_fails_the_session_for_good() {
    let cases: [(&[u8], FrameError); 4] = [
        (b"SSH-2.0-x\r\n", FrameError::Version(b'S')),
        (b"\x02", FrameError::Version(2)),
        (b"\x01\x04", FrameError::Command(4)),
        (b"\x01\x00\x01\x00\x03\x00\x00\x00", FrameError::ControlPayload { command: 0, length: 1 }),
    ];
    for (wire, expected) in cases {
        let (mut client, _, id) = pair();
        client.send(id, b"queued").unwrap();
        let good = [&Header::Push(id, 1).encode()[..], b"x", wire].concat();
        assert_eq!(client.handle_bytes(epoch(), good.into()), Err(Error::Frame(expected)));
        assert_eq!(events(&mut client), [data(id, b"x")]);
        assert_eq!(client.handle_bytes(epoch(), Bytes::new()), Err(Error::Frame(expected)));
        assert_eq!(client.open(), Err(OpenError::Failed(Error::Frame(expected))));
        assert_eq!(client.poll_transmit(MESSAGE), None);
        assert!(!client.has_transmit());
    }
}

#[test]
fn large_payloads_are_not_copied_and_small_ones_hold_little_memory() {
    let (mut client, _, id) = pair();
    let wire =
        [&Header::Push(id, 800).encode()[..], &[7; 800], &Header::Push(id, 2).encode(), b"ab"].concat();
    let wire = Bytes::from(wire);
    client.handle_bytes(epoch(), wire.clone()).unwrap();
    let [Event::Data(_, large), Event::Data(_, small)] = &events(&mut client)[..] else {
        panic!("two payloads")
    };
    assert_eq!(large.as_ptr(), wire[HEADER_LEN..].as_ptr());
    assert_eq!(small[..], *b"ab");
    assert!(!wire.as_ptr_range().contains(&small.as_ptr()));
}

#[test]
fn short_streams_leave_nothing_behind() {
    let (mut client, mut server) = (session(Role::Client), session(Role::Server));
    for round in 0..100_000_u32 {
        let id = client.open().unwrap();
        client.send(id, b"ping").unwrap();
        match round % 4 {
            0 => client.finish(id),
            1 => client.close(id),
            2 => client.reset(id),
            _ => {}
        }
        carry(&mut client, &mut server);
        for event in events(&mut server) {
            if let Event::Accepted(id) = event {
                server.finish(id);
            }
        }
        carry(&mut server, &mut client);
        client.close(id);
        carry(&mut client, &mut server);
        let _ = (events(&mut client), events(&mut server));
    }
    for end in [&client, &server] {
        assert_eq!((end.stream_count(), end.buffered_out(), end.schedule.len()), (0, 0, 0));
        assert!(end.turn.is_none() && end.frame.is_done());
        assert!(end.events.capacity() < 64);
    }
}

#[test]
fn without_keepalive_there_are_no_deadlines() {
    let start = epoch();
    let mut client = Session::new(Config::new(Role::Client), start);
    assert_eq!(client.poll_timeout(), None);
    assert_eq!(client.handle_timeout(start + Duration::from_secs(86_400)), Ok(()));
    assert!(!client.has_transmit());
}

#[test]
fn keepalive_sends_nops_and_ends_in_silence() {
    let start = epoch();
    let at = |seconds| start + Duration::from_secs(seconds);
    let config = Config { keepalive: Some(KeepAlive::default()), ..Config::new(Role::Client) };
    let mut client = Session::new(config, start);
    let nop = Bytes::copy_from_slice(&Header::Nop.encode());
    for nops in 0..4 {
        let (due, reason) = client.poll_timeout().unwrap();
        assert_eq!((due, reason), (at(10 * (nops + 1)), "smux keepalive"));
        client.handle_timeout(due).unwrap();
        assert_eq!(client.poll_transmit(MESSAGE), Some(nop.clone()));
        assert_eq!(client.poll_transmit(MESSAGE), None);
        client.handle_bytes(due, nop.clone()).unwrap();
    }
    // Last heard at 40 s: NOPs at 50 and 60 s, the end at 70 s.
    for seconds in [50, 60] {
        assert_eq!(client.poll_timeout(), Some((at(seconds), "smux keepalive")));
        client.handle_timeout(at(seconds)).unwrap();
    }
    assert_eq!(client.poll_transmit(MESSAGE), Some(nop), "one NOP says as much as two");
    assert_eq!(client.poll_timeout(), Some((at(70), "smux silence")));
    let error = Error::Silent(Duration::from_secs(30));
    assert_eq!(client.handle_timeout(at(70)), Err(error));
    assert_eq!(client.handle_bytes(at(71), Bytes::new()), Err(error));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn silence_does_not_count_while_nothing_is_read() {
    let start = epoch();
    let at = |seconds| start + Duration::from_secs(seconds);
    let config = Config { keepalive: Some(KeepAlive::default()), ..Config::new(Role::Client) };
    let mut client = Session::new(config, start);
    client.set_reading(at(5), false);
    client.handle_timeout(at(100)).unwrap();
    assert_eq!(client.poll_timeout(), Some((at(110), "smux keepalive")));
    client.set_reading(at(105), true);
    client.set_reading(at(120), true);
    client.handle_timeout(at(134)).unwrap();
    assert_eq!(client.handle_timeout(at(135)), Err(Error::Silent(Duration::from_secs(30))));
}
