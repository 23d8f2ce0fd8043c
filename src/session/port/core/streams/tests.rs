//! Streams in virtual time, with a smux server as the agent.

use super::half_close::{HALF_CLOSE_QUIET, HURRIED_QUIET, MAX_HALF_CLOSED};
use super::*;

/// The two ends, and a clock that moves only when told.
struct World {
    now: Instant,
    streams: Streams,
    agent: smux::Session,
    down_since: Option<Instant>,
    is_unread: bool,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let agent = smux::Session::new(smux::Config::new(smux::Role::Server), now);
        World { now, streams: Streams::new(true, now), agent, down_since: None, is_unread: false }
    }

    /// Time passes on a link that is heard all the time.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.streams.half_closed.set_link(self.now, self.down_since, self.is_unread, self.now);
        self.streams.handle_timeout(self.now).unwrap();
    }

    fn set_link(&mut self, down_since: Option<Instant>) {
        self.down_since = down_since;
        self.streams.half_closed.set_link(self.now, down_since, self.is_unread, self.now);
    }

    /// A stream, whose connection has the same number.
    fn add(&mut self) -> StreamId {
        let number = 3 + 2 * self.streams.len() as u64;
        let id = self.streams.open(self.now, ConnectionId(number)).unwrap();
        assert_eq!(of(id), ConnectionId(number));
        id
    }

    /// A stream the agent knows, with traffic if `request` is not empty.
    fn open(&mut self, request: &[u8]) -> StreamId {
        let id = self.add();
        if !request.is_empty() {
            self.streams.handle_input(id, request);
        }
        self.up();
        self.actions();
        id
    }

    /// Carries everything to the agent; what it has seen.
    fn up(&mut self) -> Vec<smux::Event> {
        while let Some(bytes) = self.streams.poll_transmit(1024) {
            self.agent.handle_bytes(self.now, bytes).unwrap();
        }
        std::iter::from_fn(|| self.agent.poll_event()).collect()
    }

    /// Carries everything from the agent; what the connections are to do.
    fn down(&mut self) -> Vec<Action> {
        while let Some(bytes) = self.agent.poll_transmit(1024) {
            self.streams.handle_bytes(self.now, bytes).unwrap();
        }
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        self.streams.feed();
        std::iter::from_fn(|| self.streams.poll_action()).collect()
    }
}

/// Number of the connection of a stream.
fn of(id: StreamId) -> ConnectionId {
    ConnectionId(id.get().into())
}

fn has_fin(events: &[smux::Event], id: StreamId) -> bool {
    events.contains(&smux::Event::Fin(id))
}

#[test]
fn a_chunk_is_requested_when_the_queue_has_room_for_it() {
    let mut world = World::new();
    let id = world.add();
    world.streams.handle_input(id, &[1; CHUNK]);
    assert_eq!(world.actions(), [Action::Read(of(id))]);
    world.streams.handle_input(id, &[1; CHUNK]);
    assert_eq!(world.actions(), [], "the queue is full");
    let _ = world.streams.poll_transmit(CHUNK).unwrap();
    assert_eq!(world.actions(), [], "less than a chunk of room");
    let _ = world.streams.poll_transmit(CHUNK).unwrap();
    assert_eq!(world.actions(), [Action::Read(of(id))]);
}

#[test]
fn early_data_is_sent_and_reading_continues_once() {
    let mut world = World::new();
    let (waiting, full) = (world.add(), world.add());
    world.streams.handle_early_input(waiting, b"hello", true);
    world.streams.handle_early_input(full, b"hello", false);
    assert_eq!(world.actions(), [Action::Read(of(full))], "the other's chunk is on its way");
    let sent = world.up();
    for id in [waiting, full] {
        assert!(sent.contains(&smux::Event::Data(id, Bytes::from_static(b"hello"))), "{sent:?}");
    }
}

/// A keystroke does not wait for concurrent uploads.
#[test]
fn streams_take_turns() {
    let mut world = World::new();
    let uploads: Vec<_> = (0..4).map(|_| world.add()).collect();
    for id in &uploads {
        world.streams.handle_input(*id, &[7; CHUNK]);
    }
    let mut sent = 0;
    let mut key = None;
    let mut order = Vec::new();
    while let Some(bytes) = world.streams.poll_transmit(1024) {
        sent += bytes.len();
        world.agent.handle_bytes(world.now, bytes).unwrap();
        while let Some(event) = world.agent.poll_event() {
            if let smux::Event::Data(id, bytes) = event {
                order.push((id, sent, bytes.len()));
            }
        }
        // When each upload has had its first turn.
        if sent >= 20 << 10 && key.is_none() {
            key = Some((world.add(), sent));
            world.streams.handle_input(key.unwrap().0, b"x");
        }
    }
    let (key, since) = key.unwrap();
    let (_, at, _) = order.iter().find(|(id, ..)| *id == key).expect("the key");
    assert!(at - since <= 2 * 4096, "it waited for {} bytes", at - since);
    let of = |id: &StreamId, until: usize| -> usize {
        order.iter().filter(|(other, at, _)| other == id && *at <= until).map(|(.., length)| length).sum()
    };
    let halfway: Vec<_> = uploads.iter().map(|id| of(id, 2 * CHUNK)).collect();
    let (least, most) = (halfway.iter().min().unwrap(), halfway.iter().max().unwrap());
    assert!(most - least <= 2 * 4096, "not in turns: {halfway:?}");
}

#[test]
fn the_end_of_a_request_is_sent_when_the_answer_is_over() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    world.pass(HALF_CLOSE_QUIET / 2);
    assert!(!has_fin(&world.up(), id), "an answer may be under way");
    world.agent.send(id, b"answer").unwrap();
    assert_eq!(world.down(), [Action::Write(of(id), Bytes::from_static(b"answer"))]);
    world.pass(HALF_CLOSE_QUIET / 2);
    assert!(!has_fin(&world.up(), id), "it was not quiet for long");
    assert_eq!(world.streams.next_timeout(), Some(world.now + HALF_CLOSE_QUIET / 2));
    world.pass(HALF_CLOSE_QUIET / 2);
    assert!(has_fin(&world.up(), id));
    assert_eq!(world.streams.next_timeout(), None);
}

#[test]
fn a_probe_that_said_nothing_ends_at_once() {
    let mut world = World::new();
    let id = world.open(b"");
    world.streams.handle_input_end(world.now, id);
    assert!(has_fin(&world.up(), id));
}

#[test]
fn the_remote_end_comes_after_its_bytes_and_frees_the_stream() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.agent.send(id, b"all").unwrap();
    world.agent.finish(id);
    assert_eq!(world.down(), [Action::Write(of(id), Bytes::from_static(b"all")), Action::Finish(of(id))]);
    // What it still says is read and dropped.
    world.streams.handle_input(id, b"too late");
    assert_eq!(world.actions(), [Action::Read(of(id))]);
    assert!(world.up().iter().all(|event| !matches!(event, smux::Event::Data(..))));
    assert_eq!(world.streams.streams.len(), 1, "its connection still writes");
    world.streams.handle_closed(id);
    assert_eq!(world.streams.streams.len(), 0);
}

/// Otherwise the agent learns of the end together with the request, and closes the destination before its answer.
#[test]
fn quiet_is_counted_while_the_link_is_up() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    world.pass(HALF_CLOSE_QUIET / 2);
    world.set_link(Some(world.now));
    assert_eq!(world.streams.next_timeout(), None);
    world.pass(4 * HALF_CLOSE_QUIET);
    world.set_link(None);
    world.pass(HALF_CLOSE_QUIET / 2 - Duration::from_millis(1));
    assert!(!has_fin(&world.up(), id));
    world.pass(Duration::from_millis(1));
    assert!(has_fin(&world.up(), id), "an outage postpones the end and no more");
}

/// The death of a path is noticed seconds later: the request may have been lost there, and not be answered before the next.
#[test]
fn quiet_is_not_counted_from_the_last_message_of_a_dead_path_on() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    let last_message = world.now;
    world.pass(HALF_CLOSE_QUIET / 2);
    world.set_link(Some(last_message));
    world.set_link(None);
    world.pass(HALF_CLOSE_QUIET - Duration::from_millis(1));
    assert!(!has_fin(&world.up(), id));
    world.pass(Duration::from_millis(1));
    assert!(has_fin(&world.up(), id));
}

/// A dead path is as silent as a quiet destination. The answer may have got lost there, and closing the destination would end
/// its repetition.
#[test]
fn the_end_of_a_request_waits_for_a_sign_of_life() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    let heard = world.now + HALF_CLOSE_QUIET - Duration::from_millis(1);
    world.streams.half_closed.set_link(heard, None, false, heard);
    assert!(!world.streams.wants_contact(), "it is too early for that");
    world.now += HALF_CLOSE_QUIET;
    world.streams.handle_timeout(world.now).unwrap();
    assert!(!has_fin(&world.up(), id));
    assert!(world.streams.wants_contact());
    let next = world.streams.next_timeout().unwrap();
    assert!(next > world.now, "it waits");
    world.now += Duration::from_millis(20);
    world.streams.half_closed.set_link(world.now, None, false, world.now);
    assert!(!world.streams.wants_contact() && world.streams.next_timeout() <= Some(world.now));
    world.streams.handle_timeout(world.now).unwrap();
    assert!(has_fin(&world.up(), id));
}

/// Behind an interruption an agent repeats ten messages a second, those of other streams first.
#[test]
fn the_end_of_a_request_waits_for_what_an_interruption_has_delayed() {
    let mut world = World::new();
    let (id, other) = (world.open(b"request"), world.open(b"request"));
    world.streams.handle_input_end(world.now, id);
    world.set_link(Some(world.now));
    world.pass(HALF_CLOSE_QUIET);
    world.set_link(None);
    for _ in 0..200 {
        world.agent.send(other, b"late").unwrap();
        world.down();
        world.pass(Duration::from_millis(100));
    }
    assert!(!has_fin(&world.up(), id), "twice the wait has passed, but not without a message");
    world.agent.send(id, b"answer").unwrap();
    assert_eq!(world.down(), [Action::Write(of(id), Bytes::from_static(b"answer"))]);
    world.pass(HALF_CLOSE_QUIET);
    assert!(has_fin(&world.up(), id));
}

/// The agent may have an answer that it cannot send, but the end of a pause may get lost.
#[test]
fn a_pause_of_the_agent_holds_up_the_end_of_a_request_for_a_while() {
    for is_lost in [false, true] {
        let mut world = World::new();
        let id = world.open(b"request");
        world.streams.handle_input_end(world.now, id);
        let begin = world.now;
        world.streams.half_closed.set_pause(begin, Some(begin));
        world.pass(2 * HALF_CLOSE_QUIET);
        assert!(!has_fin(&world.up(), id));
        if !is_lost {
            world.streams.half_closed.set_pause(world.now, None);
        }
        let due = world.streams.next_timeout().unwrap();
        assert_eq!(due > begin + 3 * HALF_CLOSE_QUIET, is_lost);
        world.pass(due - world.now);
        assert!(has_fin(&world.up(), id));
    }
}

/// World 2028059: the agent repeated messages that had arrived for 14 s, and then the one that was missing.
#[test]
fn the_end_of_a_request_waits_for_a_missing_message() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    world.set_link(Some(world.now));
    world.set_link(None);
    for received in 1..30 {
        world.streams.half_closed.set_arrivals(world.now, received, false);
        world.pass(Duration::from_secs(1));
    }
    assert!(!has_fin(&world.up(), id), "messages are repeated");
    for _ in 0..30 {
        world.streams.half_closed.set_arrivals(world.now, 30, true);
        world.pass(Duration::from_secs(1));
    }
    assert!(!has_fin(&world.up(), id), "one is missing");
    world.streams.half_closed.set_arrivals(world.now, 31, false);
    world.pass(HALF_CLOSE_QUIET);
    assert!(has_fin(&world.up(), id));
}

/// The end of a backlog cannot be seen in steady traffic.
#[test]
fn steady_traffic_after_an_interruption_keeps_no_stream_forever() {
    let mut world = World::new();
    let (id, other) = (world.open(b"request"), world.open(b"request"));
    world.streams.handle_input_end(world.now, id);
    world.set_link(Some(world.now));
    world.set_link(None);
    let begin = world.now;
    while !has_fin(&world.up(), id) {
        world.agent.send(other, b"frame").unwrap();
        world.down();
        world.pass(Duration::from_secs(1));
        assert!(world.now < begin + 32 * HALF_CLOSE_QUIET);
    }
    assert!(world.now > begin + 29 * HALF_CLOSE_QUIET);
}

/// Found by an attack: a slow reader, which stops the reading again and again, prolonged the wait each time.
#[test]
fn a_slow_reader_keeps_no_stream_forever() {
    let mut world = World::new();
    let (id, other) = (world.open(b"request"), world.open(b"request"));
    world.streams.handle_input_end(world.now, id);
    let begin = world.now;
    while !has_fin(&world.up(), id) {
        for is_unread in [true, false] {
            world.is_unread = is_unread;
            world.set_link(None);
            world.pass(Duration::from_millis(500));
        }
        world.agent.send(other, b"frame").unwrap();
        world.down();
        assert!(world.now < begin + 32 * HALF_CLOSE_QUIET);
    }
    assert!(world.now > begin + 29 * HALF_CLOSE_QUIET);
}

/// Found by an attack: with one client that reads nothing, those that had closed kept all descriptors.
#[test]
fn descriptors_are_released_although_a_reader_is_stuck() {
    let mut world = World::new();
    let id = world.open(b"request");
    world.streams.handle_input_end(world.now, id);
    world.is_unread = true;
    world.set_link(None);
    world.now += HURRIED_QUIET;
    world.streams.hurry(world.now);
    assert!(has_fin(&world.up(), id));
    assert_eq!(world.down(), [Action::Close(of(id))], "without an answer of the agent, which is not read");
    assert_eq!(world.streams.len(), 0);
}

#[test]
fn the_end_of_a_request_waits_until_the_request_has_left() {
    let mut world = World::new();
    let id = world.open(b"");
    world.streams.handle_input(id, b"request");
    world.streams.handle_input_end(world.now, id);
    world.pass(HALF_CLOSE_QUIET);
    assert!(!has_fin(&world.up(), id), "the request leaves now");
    world.pass(HALF_CLOSE_QUIET);
    assert!(has_fin(&world.up(), id));
}

/// The agent has closed the destination, which may have had more to say.
#[test]
fn an_answer_that_the_end_of_the_request_may_have_cut_ends_with_a_reset() {
    for is_cut in [false, true] {
        let mut world = World::new();
        let id = world.open(b"request");
        world.streams.handle_input_end(world.now, id);
        world.pass(HALF_CLOSE_QUIET);
        assert!(has_fin(&world.up(), id));
        if is_cut {
            world.agent.send(id, b"answer").unwrap();
        }
        world.agent.finish(id);
        let end = if is_cut { Action::Close(of(id)) } else { Action::Finish(of(id)) };
        assert_eq!(world.down().last(), Some(&end));
    }
}

#[test]
fn many_half_closed_streams_are_not_kept_waiting() {
    let mut world = World::new();
    let ids: Vec<_> = (0..=MAX_HALF_CLOSED).map(|_| world.open(b"x")).collect();
    for id in &ids {
        world.streams.handle_input_end(world.now, *id);
    }
    assert_eq!(world.streams.next_timeout(), Some(world.now));
    world.pass(Duration::ZERO);
    let told = world.up();
    assert_eq!(told.iter().filter(|event| matches!(event, smux::Event::Fin(_))).count(), 1);
    // A second of quiet is little where descriptors are exhausted, but no request has just been sent.
    world.streams.hurry(world.now);
    assert_eq!(world.up(), []);
    world.pass(HURRIED_QUIET);
    world.streams.hurry(world.now);
    let told = world.up();
    assert_eq!(told.iter().filter(|event| matches!(event, smux::Event::Fin(_))).count(), MAX_HALF_CLOSED);
    // Nor is it enough to take what has come for the whole.
    world.agent.finish(ids[0]);
    let closed = world.down();
    assert_eq!(closed.len(), ids.len());
    assert!(ids.iter().all(|id| closed.contains(&Action::Close(of(*id)))), "{closed:?}");
    assert_eq!(world.streams.len(), 0);
}

#[test]
fn streams_are_bounded() {
    let mut world = World::new();
    for _ in 0..MAX_STREAMS {
        assert!(world.streams.may_open());
        world.add();
    }
    assert!(!world.streams.may_open());
    assert!(world.streams.open(world.now, ConnectionId(0)).is_err());
}

#[test]
fn a_reader_that_stalls_is_reported_once_each_time() {
    let mut world = World::new();
    world.streams.set_room(world.now, false);
    assert!(world.streams.is_held_up());
    assert_eq!(world.streams.next_timeout(), Some(world.now + STALL_NOTICE));
    world.pass(STALL_NOTICE / 2);
    world.streams.set_room(world.now, false);
    assert!(!world.streams.take_stall(world.now), "too early");
    world.pass(STALL_NOTICE / 2);
    assert!(world.streams.take_stall(world.now));
    assert!(!world.streams.take_stall(world.now), "told already");
    assert_eq!(world.streams.next_timeout(), None);
    world.streams.set_room(world.now, true);
    assert!(!world.streams.is_held_up());
    world.streams.set_room(world.now, false);
    world.pass(STALL_NOTICE);
    assert!(world.streams.take_stall(world.now), "another time");
}

/// Silence is no failure while we do not listen.
#[test]
fn keepalives_stop_counting_while_a_reader_stalls() {
    let now = Instant::now();
    let mut streams = Streams::new(false, now);
    streams.set_room(now, false);
    let later = now + Duration::from_secs(120);
    assert!(streams.handle_timeout(later).is_ok());
    streams.set_room(later, true);
    let failed = streams.handle_timeout(later + Duration::from_secs(31));
    assert!(failed.is_err(), "nothing was heard for half a minute");
}

#[test]
fn another_protocol_ends_the_session_after_what_was_good() {
    let mut world = World::new();
    let id = world.open(b"x");
    world.agent.send(id, b"good").unwrap();
    let mut bytes = world.agent.poll_transmit(1024).unwrap().to_vec();
    bytes.extend(b"HTTP/1.1 400 Bad Request");
    assert!(world.streams.handle_bytes(world.now, bytes.into()).is_err());
    assert_eq!(world.actions().last(), Some(&Action::Write(of(id), Bytes::from_static(b"good"))));
}

/// A session makes room for another destination when nothing of it is in use.
#[test]
fn which_streams_are_idle() {
    let (begin, second) = (Instant::now(), Duration::from_secs(1));
    let mut streams = Streams::new(true, begin);
    let response = |id: StreamId| {
        let frame = [&[1, 2, 2, 0], &id.get().to_le_bytes()[..], b"ok"].concat();
        Bytes::from(frame)
    };
    let web = streams.open(begin, ConnectionId(0)).unwrap();
    streams.handle_input(web, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(streams.idle_since(), None, "it waits for the response");
    streams.handle_bytes(begin + second, response(web)).unwrap();
    assert_eq!(streams.idle_since(), Some(begin + second + KEPT_ALIVE), "it waits for a request");
    streams.handle_input(web, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(streams.idle_since(), None);
    streams.handle_bytes(begin + 2 * second, response(web)).unwrap();
    let database = streams.open(begin, ConnectionId(0)).unwrap();
    streams.handle_input(database, b"\0\0\0\x08\x04\xd2\x16\x2f");
    streams.handle_bytes(begin + 3 * second, response(database)).unwrap();
    assert_eq!(streams.idle_since(), None, "a database connection is in use although it is quiet");
    streams.handle_input_end(begin + 60 * second, database);
    assert_eq!(streams.idle_since(), Some(begin + 60 * second), "its client has gone, perhaps");
    let spare = streams.open(begin + 70 * second, ConnectionId(0)).unwrap();
    assert_eq!(streams.idle_since(), Some(begin + 70 * second + KEPT_ALIVE), "a browser's spare connection");
    streams.handle_input(spare, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(streams.idle_since(), None);
}
