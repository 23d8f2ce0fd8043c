//! Destinations of proxies' clients, which come and go.

use super::*;

/// A proxy whose sessions start at once.
fn proxy() -> World {
    let mut world = World::on_demand(1);
    world.is_generous = true;
    world
}

impl World {
    /// A client that asks for a destination.
    fn connect_by_proxy(&mut self, host: &str) -> (DestinationId, ConnectionId) {
        let destination = self.core.proxied_destination(address(host), PROXIED);
        (destination, self.connect_to(destination, b""))
    }

    fn sessions(&self, destination: DestinationId) -> usize {
        self.core.destinations[&destination].session_numbers().len()
    }
}

#[test]
fn a_destination_is_ended_after_five_idle_minutes() {
    let mut world = proxy();
    let (destination, first) = world.connect_by_proxy("db.internal");
    let (same, second) = world.connect_by_proxy("db.internal");
    let (_, _other) = world.connect_by_proxy("web.internal");
    assert_eq!((destination, world.core.proxied.len(), world.starts.len()), (same, 2, 2));
    world.leave(first);
    world.pass(1000 * SECOND);
    assert_eq!(world.core.proxied.len(), 2, "both are in use");
    world.leave(second);
    world.pass(290 * SECOND);
    assert_eq!(world.core.proxied.len(), 2);
    // The next client has another five minutes.
    let (again, third) = world.connect_by_proxy("db.internal");
    assert_eq!(again, destination);
    world.leave(third);
    world.pass(290 * SECOND);
    assert_eq!(world.core.proxied.len(), 2);
    world.pass(20 * SECOND);
    assert_eq!(world.core.proxied.len(), 1);
    assert_eq!(world.core.destinations.len(), 2, "that of argv and the other");
    assert_eq!(world.ended.len(), 1);
    let (new, _client) = world.connect_by_proxy("db.internal");
    assert!(new > destination && world.starts.len() == 3, "a session of its own again");
}

#[test]
fn the_session_that_is_idle_longest_makes_room_after_five_seconds() {
    let mut world = proxy();
    let mut clients: Vec<_> =
        (0..seats::MAX_SESSIONS).map(|number| world.connect_by_proxy(&format!("host{number}"))).collect();
    for (_, client) in &clients {
        world.core.handle_report(world.now, *client, Report::Data(Bytes::from_static(b"x")));
    }
    let (late, _late) = world.connect_by_proxy("one-more");
    world.pass(10 * SECOND);
    assert_eq!(world.sessions(late), 0, "all are in use");
    let (longest, client) = clients.remove(7);
    world.leave(client);
    let closed = world.now;
    world.pass(SECOND);
    let (other, client) = clients.remove(3);
    world.leave(client);
    world.pass(20 * SECOND);
    assert_eq!((world.sessions(late), world.sessions(longest), world.sessions(other)), (1, 0, 1));
    assert_eq!(*world.starts.last().unwrap() - closed, 5 * SECOND);
}

/// Found with Chromium, which opens spare connections: they kept their sessions for good.
#[test]
fn a_session_with_only_unused_connections_makes_room() {
    let mut world = proxy();
    let spare: Vec<_> =
        (0..seats::MAX_SESSIONS).map(|number| world.connect_by_proxy(&format!("host{number}"))).collect();
    let (late, _late) = world.connect_by_proxy("one-more");
    world.pass(20 * SECOND);
    let left = spare.iter().filter(|(destination, _)| world.sessions(*destination) == 1).count();
    assert_eq!((world.sessions(late), left), (1, seats::MAX_SESSIONS - 1));
}

/// Found with Chromium: 29 of 60 images failed. Here no client may fail, and each of them may be slow to close.
#[test]
fn sixty_destinations_one_after_another_wait_for_their_turn() {
    let mut world = proxy();
    let mut waiting: Vec<_> =
        (0..60).map(|number| world.connect_by_proxy(&format!("host{number}"))).collect();
    let (mut open, begin) = (Vec::new(), world.now);
    while !waiting.is_empty() && world.now < begin + 60 * SECOND {
        let served: Vec<_> =
            waiting.extract_if(.., |(destination, _)| world.sessions(*destination) == 1).collect();
        open.extend(served.into_iter().map(|(_, client)| (world.now, client)));
        let is_done = |(since, _): &mut (Instant, ConnectionId)| world.now >= *since + SECOND;
        let done: Vec<_> = open.extract_if(.., is_done).collect();
        done.into_iter().for_each(|(_, client)| world.leave(client));
        world.pass(SECOND / 2);
    }
    assert!(waiting.is_empty(), "{} are left", waiting.len());
    assert_eq!(world.starts.len(), 60, "one session each");
}

/// Measured before there was a quota: 4,637 calls in 6 s.
#[test]
fn clients_that_leave_at_once_start_a_burst_and_then_two_a_second() {
    let mut world = proxy();
    let begin = world.now;
    let mut number = 0;
    while world.now < begin + 60 * SECOND {
        let (_, client) = world.connect_by_proxy(&format!("host{number}"));
        world.leave(client);
        world.pass(SECOND / 50);
        number += 1;
    }
    let (starts, seconds) = (world.starts.len() as u64, (world.now - begin).as_secs());
    assert!(
        number > 1000 && starts <= 64 + 2 * (seconds + 1),
        "{starts} starts for {number} clients in {seconds} s"
    );
    assert!(world.core.proxied.len() <= MAX_PROXIED);
    assert!(world.core.tables.sessions.len() <= seats::MAX_SESSIONS);
}
