//! Sessions of one destination: how many, for which connections, and their replacement.

use super::*;

#[test]
fn a_connection_goes_to_the_session_with_the_fewest() {
    let mut world = World::on_demand(2);
    world.add_ready();
    world.add_ready();
    let (_first, second, _third) = (world.connect(), world.connect(), world.connect());
    assert_eq!(world.loads(), [2, 1]);
    // A client that has said nothing and closes leaves at once.
    world.leave(second);
    assert_eq!(world.loads(), [2, 0]);
    world.connect();
    world.connect();
    assert_eq!(world.loads(), [2, 2]);
}

#[test]
fn sessions_are_started_for_connections_up_to_the_number_allowed() {
    let mut world = World::on_demand(3);
    world.pass(10 * SECOND);
    assert_eq!(world.starts.len(), 0);
    for expected in [1, 2, 3, 3, 3] {
        world.connect();
        assert_eq!(world.starts.len(), expected);
    }
    world.succeed();
    assert_eq!(world.loads(), [5, 0, 0], "they have waited for any");
    world.succeed();
    world.succeed();
    world.connect();
    assert_eq!(world.loads(), [5, 1, 0]);
}

/// `nc -z`, a wait loop, a load balancer's check.
#[test]
fn a_probe_starts_no_session() {
    let mut world = World::on_demand(4);
    for _ in 0..50 {
        let probe = world.connect_with(b"");
        world.leave(probe);
        world.pass(2 * PROBE);
    }
    assert_eq!((world.starts.len(), world.core.tables.connections.len()), (0, 0));
    // One that stays may wait for a server that speaks first, one that has said something does not need to.
    world.connect_with(b"");
    assert_eq!(world.starts.len(), 0);
    world.pass(PROBE);
    assert_eq!(world.starts.len(), 1);
    world.connect_with(b"x");
    assert_eq!(world.starts.len(), 2);
    // Nor does a probe of a port whose session is ready ask for another.
    let mut world = World::on_demand(4);
    world.add_ready();
    world.connect_with(b"x");
    for _ in 0..5 {
        let probe = world.connect_with(b"");
        world.leave(probe);
        world.pass(2 * PROBE);
    }
    assert_eq!(world.starts.len(), 0);
}

/// 2^31 connections later.
#[test]
fn a_session_without_stream_ids_is_followed_by_another() {
    for mut world in [World::on_demand(1), World::fixed(1)] {
        let plan = world.core.destinations[&world.main].policy().plan;
        let spent = world.add_ready();
        world.core.tables.sessions.get_mut(&spent).unwrap().leave_ids(1);
        let first = world.connect_with(b"x");
        // In the listener, without a place to wait.
        assert_eq!(world.core.may_accept(world.main), plan == Plan::OnDemand);
        if plan == Plan::OnDemand {
            world.connect_with(b"y");
        } else {
            world.pass(SECOND);
        }
        assert_eq!(world.starts.len(), 1, "{plan:?}: the next connection needs another");
        world.succeed();
        assert_eq!(world.loads(), if plan == Plan::OnDemand { [1, 1] } else { [1, 0] }, "{plan:?}");
        world.reset(first);
        assert_eq!(world.loads().len(), 1, "{plan:?}: the first has ended");
        assert_eq!(world.ended, [spent]);
        assert!(world.over.is_none(), "{plan:?}");
    }
}

#[test]
fn fixed_sessions_that_fail_are_reported_once_with_the_number_that_is_left() {
    let mut world = World::fixed(4);
    world.add_ready();
    world.run();
    world.fail(ErrorKind::Denied);
    let second = world.succeed();
    assert_eq!(world.messages(), [""; 0], "one is still being started");
    world.fail(ErrorKind::Denied);
    assert_eq!(world.messages(), ["continuing with 2 of 4 sessions: ssm:StartSession failed: no"]);
    world.until_next_start();
    world.fail(ErrorKind::Denied);
    world.close(second, "idle");
    assert_eq!(world.messages().len(), 1, "{:?}", world.messages());
}

#[test]
fn fixed_sessions_start_all_at_once_and_end_with_the_first() {
    let mut world = World::fixed(3);
    let first = world.add_ready();
    world.run();
    assert_eq!(world.starts.len(), 2);
    let second = world.succeed();
    world.succeed();
    world.close(second, "idle");
    assert_eq!(world.starts.len(), 2, "not at once");
    let delay = world.until_next_start();
    assert!(delay >= SECOND && delay <= 5 * SECOND / 2, "{delay:?}");
    let before = world.starts.len();
    world.close(first, "over");
    assert!(matches!(&world.over, Some(End::Closed(output)) if output == "over"), "{:?}", world.over);
    world.pass(60 * SECOND);
    assert_eq!(world.starts.len(), before, "nothing is started any more");
}

#[test]
fn after_a_failure_one_at_a_time_is_tried_with_growing_delays() {
    let mut world = World::on_demand(3);
    let clients = [world.connect(), world.connect(), world.connect()];
    for _ in 0..3 {
        world.fail(ErrorKind::Unreachable);
    }
    // The three failures at once have made one step.
    let mut delays = Vec::new();
    for _ in 0..6 {
        delays.push(world.until_next_start());
        world.pass(3 * SECOND);
        assert_eq!(world.asked.len(), 1, "one at a time");
        world.fail(ErrorKind::TargetNotConnected);
    }
    assert!(delays[0] >= SECOND / 5 && delays[0] <= SECOND, "{delays:?}");
    assert!(delays.iter().skip(4).all(|delay| *delay >= 4 * SECOND && *delay <= 9 * SECOND), "{delays:?}");
    assert_eq!(world.messages().len(), 1, "the reason is reported once: {:?}", world.messages());
    // One that works serves all, and the others are requested again.
    world.until_next_start();
    let first = world.succeed();
    assert_eq!(world.loads(), [3, 0, 0]);
    let sessions = [first, world.succeed(), world.succeed()];
    world.pass(11 * SECOND);
    sessions.into_iter().for_each(|session| world.close(session, "idle"));
    clients.into_iter().for_each(|client| world.leave(client));
    world.pass(SECOND);
    let before = world.starts.len();
    world.connect();
    assert_eq!(world.starts.len(), before + 1, "at once");
}

/// Found by a new user: the client of a misspelt target waited for five minutes.
#[test]
fn a_target_that_was_never_connected_is_waited_for_on_request_only() {
    let mut world = World::new(Policy { first_wait: None, ..ON_DEMAND });
    let client = world.connect();
    world.fail(ErrorKind::TargetNotConnected);
    assert_eq!(world.client(client).end, Some(ClientEnd::Reset));
    assert!(world.messages()[0].ends_with("or use --wait to wait until it is connected"));

    let mut world = World::new(Policy { first_wait: Some(20 * SECOND), ..ON_DEMAND });
    let client = world.connect();
    world.fail(ErrorKind::TargetNotConnected);
    assert!(world.messages()[0].ends_with("; trying again while a client waits"));
    world.pass(18 * SECOND);
    assert!(!world.is_closed(client));
    world.pass(3 * SECOND);
    assert_eq!(world.client(client).end, Some(ClientEnd::Reset));
}

/// An instance that restarts is not connected for a while.
#[test]
fn a_target_that_was_connected_is_waited_for() {
    let mut world = World::new(Policy { first_wait: None, ..ON_DEMAND });
    world.connect();
    let session = world.succeed();
    world.close(session, "the agent has stopped");
    let client = world.connect();
    world.until_next_start();
    world.fail(ErrorKind::TargetNotConnected);
    world.pass(WAIT - 10 * SECOND);
    assert!(!world.is_closed(client));
    world.pass(20 * SECOND);
    assert!(world.is_closed(client));
}

#[test]
fn nothing_is_tried_again_without_a_connection_that_waits() {
    let mut world = World::on_demand(4);
    let client = world.connect();
    world.fail(ErrorKind::Unreachable);
    world.leave(client);
    world.pass(60 * SECOND);
    assert_eq!(world.starts.len(), 1);
    world.connect();
    assert_eq!(world.starts.len(), 2, "the pause is over");
}

#[test]
fn a_session_that_ends_is_followed_by_another_for_the_next_connection_only() {
    let mut world = World::on_demand(4);
    let open = world.connect();
    let session = world.succeed();
    world.pass(11 * SECOND);
    world.close(session, "idle");
    assert_eq!(world.clients[&open].end, Some(ClientEnd::Reset), "what has come is not the whole");
    assert!(
        matches!(world.statuses.last(), Some(Status::SessionEnded { reason, .. }) if reason == "idle"),
        "{:?}",
        world.statuses
    );
    world.pass(600 * SECOND);
    assert_eq!(world.starts.len(), 1);
    world.connect();
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn a_denied_start_closes_those_that_wait_is_reported_once_and_does_not_spin() {
    let mut world = World::on_demand(2);
    let waiting = [world.connect(), world.connect()];
    for _ in 0..2 {
        world.fail(ErrorKind::Denied);
    }
    assert!(waiting.into_iter().all(|client| world.is_closed(client)));
    let begin = world.now;
    let mut attempts = 0;
    while world.now < begin + 60 * SECOND {
        let client = world.connect();
        attempts += 1;
        if !world.asked.is_empty() {
            world.fail(ErrorKind::Denied);
        }
        assert!(world.is_closed(client));
        world.pass(SECOND / 10);
    }
    assert!(attempts > 200 && world.starts.len() < 20, "{} starts for {attempts}", world.starts.len());
    let messages = world.messages();
    assert!(matches!(messages[..], [text] if text.contains("allow ssm:StartSession")), "{messages:?}");
    // As soon as it works, all is well.
    world.pass(10 * SECOND);
    world.connect();
    world.succeed();
    assert_eq!(world.loads(), [1]);
}

#[test]
fn a_connection_waits_for_minutes_and_a_proxys_client_for_less() {
    let timed_out = [Reply::TimedOut];
    for (mut world, seconds, replies) in
        [(World::on_demand(1), 300, &timed_out[..0]), (World::proxied(), 60, &timed_out)]
    {
        let client = world.connect();
        world.pass((seconds - 1) * SECOND);
        assert!(!world.is_closed(client));
        world.pass(2 * SECOND);
        assert!(world.is_closed(client));
        assert_eq!(world.replies(client), replies);
        assert!(world.core.tables.connections.is_empty());
    }
}

#[test]
fn clients_that_may_have_gone_wait_less() {
    let mut world = World::on_demand(1);
    let full = world.connect_with(&[1; 64 << 10]);
    let half_closed = world.connect_with(b"the whole request");
    world.shut_down(half_closed);
    let probe = world.connect();
    world.shut_down(probe);
    assert_eq!(world.waiting(), 2, "a client that sends nothing wants nothing");
    assert_eq!(world.clients[&probe].end, Some(ClientEnd::Finished));
    world.pass(30 * SECOND);
    world.leave(full);
    world.pass(29 * SECOND);
    assert_eq!(world.waiting(), 2);
    // Whether the one of which nothing more is read has left or not makes no difference.
    world.pass(2 * SECOND);
    assert_eq!(world.waiting(), 0);
}

/// A client that waits for the end of its answer must not take nothing for the whole.
#[test]
fn a_client_that_is_given_up_is_reset() {
    let mut world = World::on_demand(1);
    let half_closed = world.connect_with(b"the whole request");
    world.shut_down(half_closed);
    let silent = world.connect();
    world.pass(301 * SECOND);
    let late = world.connect();
    world.fail(ErrorKind::Denied);
    let early = world.connect();
    for client in [half_closed, silent, late, early] {
        assert_eq!(world.clients[&client].end, Some(ClientEnd::Reset), "{client:?}");
    }
}

#[test]
fn waiting_is_bounded() {
    let mut world = World::on_demand(1);
    let bound = 256;
    for _ in 0..bound {
        assert!(world.core.may_accept(world.main));
        world.connect_with(b"x");
    }
    assert!(!world.core.may_accept(world.main));
    let additional = world.connect_with(b"x");
    assert!(world.is_closed(additional));
    world.succeed();
    assert!(world.core.may_accept(world.main));
    // With few descriptors, most of them are left to the sessions.
    let mut core = Forwarder::new(world.now, 16, 1);
    let main = core.add_destination(None, ON_DEMAND);
    for number in 0..2 {
        assert!(core.may_accept(main));
        core.handle_accepted(world.now, ConnectionId(number), main);
    }
    assert!(!core.may_accept(main));
}

/// The agent has resolved the name when the session began: an old session is replaced, a young one has just done so.
#[test]
fn a_session_whose_destination_was_refused_is_replaced_when_it_is_old_and_unused() {
    let mut world = World::on_demand(1);
    let session = world.add_ready();
    let (first, other) = (world.connect_with(b"x"), world.connect_with(b"y"));
    world.refuse(first);
    assert!(world.is_closed(first));
    world.leave(first);
    world.pass(10 * SECOND);
    let third = world.connect_with(b"z");
    assert_eq!(world.starts.len(), 0, "it is in use");
    for client in [other, third] {
        world.refuse(client);
        assert!(world.is_closed(client));
        world.leave(client);
    }
    world.connect_with(b"x");
    assert_eq!((world.starts.len(), world.loads().len()), (1, 1), "another resolves the name");
    assert_eq!(world.ended, [session], "the old one is ended");
}

#[test]
fn a_destination_that_stays_away_costs_a_session_now_and_then() {
    let mut world = World::on_demand(1);
    world.add_ready();
    let (begin, mut starts) = (world.now, Vec::new());
    while world.now < begin + 600 * SECOND {
        let client = world.connect_with(b"x");
        if !world.asked.is_empty() {
            world.succeed();
            starts.push(world.now - begin);
        }
        world.refuse(client);
        world.leave(client);
        world.pass(SECOND);
    }
    assert!(starts[0] >= 3 * SECOND, "it had just resolved it: {starts:?}");
    assert!((5..20).contains(&starts.len()), "{starts:?}");
    // Once it is there, the next failover is found as soon as the first.
    let client = world.connect_with(b"x");
    world.write(client, b"hello");
    world.leave(client);
    let session = *world.core.tables.sessions.keys().next().unwrap();
    world.close(session, "idle");
    world.pass(60 * SECOND);
    let client = world.connect_with(b"x");
    world.succeed();
    world.refuse(client);
    world.leave(client);
    world.pass(4 * SECOND);
    let before = world.starts.len();
    world.connect_with(b"x");
    assert_eq!(world.starts.len(), before + 1, "after three seconds");
}

/// A client that is less patient than StartSession comes again.
#[test]
fn a_session_whose_client_has_gone_is_there_for_the_next() {
    let mut world = World::proxied();
    let client = world.connect();
    world.leave(client);
    world.succeed();
    world.pass(10 * SECOND);
    assert_eq!((world.starts.len(), world.loads()), (1, vec![0]));
    world.connect();
    assert_eq!((world.starts.len(), world.loads()), (1, vec![1]));
}

/// A download that the remote has ended is whole, whatever becomes of its session.
#[test]
fn connections_that_are_whole_are_delivered_when_their_session_ends() {
    let mut world = World::on_demand(1);
    let session = world.add_ready();
    let (whole, part) = (world.connect_with(b"x"), world.connect_with(b"y"));
    world.write(whole, b"all");
    world.finish(whole);
    world.write(part, b"some");
    world.close(session, "");
    assert_eq!(world.clients[&whole].end, Some(ClientEnd::Finished));
    assert_eq!(world.clients[&part].end, Some(ClientEnd::Reset));
    assert!(world.core.tables.connections.is_empty());
    // What their tasks report later concerns nothing any more.
    world.core.handle_report(world.now, part, Report::Closed);
    world.core.handle_report(world.now, ConnectionId(99), Report::Closed);
    world.run();
}

#[test]
fn an_agent_that_speaks_another_protocol_ends_its_session_after_what_was_good() {
    let mut world = World::on_demand(1);
    let session = world.add_ready();
    let client = world.connect_with(b"x");
    let (_, stream) = world.stream(client);
    world.agent(session).send(stream, b"good").unwrap();
    let mut bytes = world.agent(session).poll_transmit(1024).unwrap().to_vec();
    bytes.extend(b"HTTP/1.1 400 Bad Request");
    world.core.handle_bytes(world.now, session, bytes.into());
    world.run();
    assert_eq!(world.clients[&client].received, b"good");
    assert_eq!((world.clients[&client].end, &world.ended[..]), (Some(ClientEnd::Reset), &[session][..]));
}
