//! Properties over random inputs.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::epoch;
use crate::smux::frame::Header;
use crate::smux::*;

/// Frames seen, parts of one payload joined, and what stopped the parser.
fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut seen) = (Decoder::default(), Vec::<Frame>::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
                Ok(Some(Frame::Push(id, part))) => match seen.last_mut() {
                    Some(Frame::Push(last, joined)) if *last == id => {
                        *joined = [&joined[..], &part[..]].concat().into();
                    }
                    _ => seen.push(Frame::Push(id, part)),
                },
                Ok(Some(frame)) => seen.push(frame),
            }
        }
    }
    (seen, None)
}

fn wire_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = (0..40_u32).prop_map(StreamId);
    prop_oneof![
        4 => id.clone().prop_map(|id| Header::Syn(id).encode().to_vec()),
        2 => id.clone().prop_map(|id| Header::Fin(id).encode().to_vec()),
        1 => Just(Header::Nop.encode().to_vec()),
        6 => (id, 0..300_u16, any::<u8>()).prop_map(|(id, length, first)| {
            let payload: Vec<u8> = (0..length).map(|at| first.wrapping_add(at as u8)).collect();
            [&Header::Push(id, payload.len() as u16).encode()[..], &payload].concat()
        }),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Send { server: bool, stream: usize, length: usize },
    Finish { server: bool, stream: usize },
    Close { server: bool, stream: usize },
    Reset { server: bool, stream: usize },
    Carry { server: bool, max: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let stream = 0..12_usize;
    prop_oneof![
        2 => Just(Op::Open),
        8 => (any::<bool>(), stream.clone(), 0..3000_usize)
            .prop_map(|(server, stream, length)| Op::Send { server, stream, length }),
        2 => (any::<bool>(), stream.clone()).prop_map(|(server, stream)| Op::Finish { server, stream }),
        1 => (any::<bool>(), stream.clone()).prop_map(|(server, stream)| Op::Close { server, stream }),
        1 => (any::<bool>(), stream).prop_map(|(server, stream)| Op::Reset { server, stream }),
        8 => (any::<bool>(), prop_oneof![1..20_usize, Just(1024), 1..5000_usize])
            .prop_map(|(server, max)| Op::Carry { server, max }),
    ]
}

/// Log of one end's actions on a stream and events from it.
#[derive(Default)]
struct Log {
    sent: Vec<u8>,
    received: Vec<u8>,
    fin: bool,
    known: bool,
    finished: bool,
    closed: bool,
    reset: bool,
}

struct End {
    session: Session,
    logs: BTreeMap<StreamId, Log>,
}

impl End {
    fn new(role: Role) -> Self {
        // The client forgets a stream before the server does, and may open the next.
        let max_streams = if role == Role::Client { 12 } else { 1000 };
        let config = Config { max_frame: 700, send_buffer: 5000, max_streams, ..Config::new(role) };
        Self { session: Session::new(config, epoch()), logs: BTreeMap::new() }
    }

    fn nth(&self, stream: usize) -> Option<StreamId> {
        self.logs.iter().filter(|(_, log)| log.known).map(|(&id, _)| id).nth(stream)
    }

    fn receive(&mut self, bytes: Bytes) {
        self.session.handle_bytes(epoch(), bytes).unwrap();
        while let Some(event) = self.session.poll_event() {
            let log = self.logs.entry(event.id()).or_default();
            assert!(!log.fin && !log.closed, "{event:?} after the end");
            match event {
                Event::Accepted(_) => log.known = true,
                Event::Data(_, part) => log.received.extend_from_slice(&part),
                Event::Fin(_) => log.fin = true,
            }
        }
    }
}

/// Moves one piece; false if there was none.
fn carry(from: &mut End, to: &mut End, max: usize) -> bool {
    let expected = from.session.has_transmit();
    let bytes = from.session.poll_transmit(max);
    assert_eq!(bytes.is_some(), expected);
    let Some(bytes) = bytes else { return false };
    assert!(bytes.len() == max || bytes.len() < max && !from.session.has_transmit(), "pieces are full");
    to.receive(bytes);
    true
}

proptest! {
    #[test]
    fn any_slicing_parses_the_same(
        wire in vec(wire_frame(), 0..20),
        tail in vec(any::<u8>(), 0..12),
        cuts in vec(1..90_usize, 1..40),
    ) {
        let wire = [wire.concat(), tail].concat();
        let mut rest = &wire[..];
        let mut sizes = cuts.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let size = (*sizes.next()?).min(rest.len());
            let (piece, left) = rest.split_at(size);
            rest = left;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(parse(pieces), parse(std::iter::once(&wire[..])));
        prop_assert_eq!(parse(wire.chunks(1)), parse(std::iter::once(&wire[..])));
    }

    #[test]
    fn bytes_arrive_in_order_whatever_the_ends_do(ops in vec(op(), 0..200)) {
        let mut ends = [End::new(Role::Client), End::new(Role::Server)];
        let mut next = 0_u8;
        for op in ops {
            match op {
                Op::Open => {
                    if let Ok(id) = ends[0].session.open() {
                        ends[0].logs.insert(id, Log { known: true, ..Log::default() });
                    }
                }
                Op::Send { server, stream, length } => {
                    let end = &mut ends[usize::from(server)];
                    let Some(id) = end.nth(stream) else { continue };
                    let length = length.min(end.session.send_capacity(id));
                    let data: Vec<u8> = (0..length).map(|_| { next = next.wrapping_add(1); next }).collect();
                    if end.session.send(id, &data).is_ok() {
                        end.logs.entry(id).or_default().sent.extend_from_slice(&data);
                    }
                }
                Op::Finish { server, stream } => {
                    let end = &mut ends[usize::from(server)];
                    let Some(id) = end.nth(stream) else { continue };
                    end.session.finish(id);
                    end.logs.entry(id).or_default().finished = true;
                }
                Op::Close { server, stream } => {
                    let end = &mut ends[usize::from(server)];
                    let Some(id) = end.nth(stream) else { continue };
                    end.session.close(id);
                    end.logs.entry(id).or_default().closed = true;
                }
                Op::Reset { server, stream } => {
                    let end = &mut ends[usize::from(server)];
                    let Some(id) = end.nth(stream) else { continue };
                    end.session.reset(id);
                    let log = end.logs.entry(id).or_default();
                    (log.closed, log.reset) = (true, true);
                }
                Op::Carry { server, max } => {
                    let [client, server_end] = &mut ends;
                    if server { carry(server_end, client, max) } else { carry(client, server_end, max) };
                }
            }
        }

        let [client, server] = &mut ends;
        while carry(client, server, 1024) || carry(server, client, 1024) {}
        let none = Log::default();
        for (from, to) in [(&*client, &*server), (&*server, &*client)] {
            for (id, sent) in &from.logs {
                let seen = to.logs.get(id).unwrap_or(&none);
                prop_assert!(sent.sent.starts_with(&seen.received), "stream {} is out of order", id);
                if !sent.reset && !seen.closed {
                    prop_assert_eq!(seen.received.len(), sent.sent.len(), "stream {}", id);
                    prop_assert_eq!(seen.fin, sent.finished || sent.closed, "stream {}", id);
                }
            }
        }
        let ids: Vec<_> = client.logs.keys().copied().collect();
        for id in ids {
            client.session.finish(id);
            server.session.finish(id);
        }
        while carry(client, server, 1024) || carry(server, client, 1024) {}
        prop_assert_eq!((client.session.stream_count(), server.session.stream_count()), (0, 0));
        prop_assert_eq!((client.session.buffered_out(), server.session.buffered_out()), (0, 0));
    }

    #[test]
    fn hostile_input_neither_panics_nor_grows(
        server in any::<bool>(),
        pieces in vec(prop_oneof![
            8 => vec(wire_frame(), 0..40).prop_map(|frames| frames.concat()),
            1 => vec(any::<u8>(), 0..40),
        ], 0..30),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut session = Session::new(Config { max_streams: 20, ..Config::new(role) }, epoch());
        for _ in 0..10 {
            let id = session.open().unwrap();
            session.finish(id);
        }
        for piece in pieces {
            let length = piece.len();
            let failed = session.handle_bytes(epoch(), piece.into()).is_err();
            let (mut events, mut bytes) = (0, 0);
            while let Some(event) = session.poll_event() {
                events += 1;
                if let Event::Data(_, part) = event {
                    bytes += part.len();
                }
            }
            prop_assert!(bytes <= length && events <= length);
            prop_assert!(session.stream_count() <= 20 && session.buffered_out() == 0);
            let _ = session.poll_transmit(1024);
            if failed {
                prop_assert!(session.handle_bytes(epoch(), Bytes::new()).is_err());
                prop_assert!(session.poll_transmit(1024).is_none());
            }
        }
    }
}
