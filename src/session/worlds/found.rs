//! Worlds in which the program once broke a rule, made as small as possible.

use std::time::Duration;

use ssm_sim::agent::Generation;

use super::assert_rules;
use super::world::{Client, Destination, Ending, Event, Kind, LinkQuality, World};

fn world(destination: Destination, clients: &[Client], events: &[(u64, Event)]) -> World {
    World {
        seed: 0,
        kind: Kind::Ports,
        agent: Generation::V3_3,
        payload: 1024,
        restart: false,
        sessions: 1,
        has_small_buffer: false,
        link: LinkQuality::default(),
        destinations: vec![destination],
        clients: clients.to_vec(),
        events: events.iter().map(|(ms, event)| (Duration::from_millis(*ms), *event)).collect(),
    }
}

fn client(at_ms: u64, request: usize, ending: Ending) -> Client {
    Client {
        at_ms,
        destination: 0,
        socks: false,
        request,
        piece: 1000,
        pause_ms: 0,
        read_pause_ms: 0,
        stall_ms: 0,
        ending,
    }
}

/// World 41: sessions that share the port were idle when their paths died, and were left open at the service.
#[test]
fn a_session_whose_path_has_died_unnoticed_is_ended_at_the_service() {
    let clients = [client(29_994, 1, Ending::Complete)];
    let world = world(Destination::Echo { late_ms: 3 }, &clients, &[(22_278, Event::DeadPath)]);
    assert_rules(
        "a_session_whose_path_has_died_unnoticed_is_ended_at_the_service",
        &World { sessions: 8, ..world },
    );
}

/// World 981: the quiet that a half-closed connection waits for went by while the link was down; the end was passed on to the agent
/// with the rest of the request, and closed the destination before its answer.
#[test]
fn an_answer_after_half_close_arrives_although_the_link_was_down() {
    let destination = Destination::Answer { think_ms: 10, bytes: 5000, closes: true };
    let clients = [client(5000, 100, Ending::HalfClose)];
    let events = [(4000, Event::Silence { ms: 20_000 }), (4500, Event::Outage { ms: 30_000 })];
    let world = world(destination, &clients, &events);
    assert_rules("an_answer_after_half_close_arrives_although_the_link_was_down", &world);
}

/// World 1869: the same while a path had died and the program had not noticed.
#[test]
fn an_answer_after_half_close_arrives_although_the_path_was_dead() {
    let destination = Destination::Answer { think_ms: 9000, bytes: 5000, closes: true };
    let clients = [client(5000, 100, Ending::HalfClose)];
    let world = world(destination, &clients, &[(4990, Event::DeadPath)]);
    assert_rules("an_answer_after_half_close_arrives_although_the_path_was_dead", &world);
}

/// World 5098, with a first correction of the last one: an idle link that broke again and again postponed the end each time.
#[test]
fn a_half_closed_connection_ends_although_the_link_breaks_every_few_seconds() {
    let world = world(Destination::Echo { late_ms: 0 }, &[client(5000, 100, Ending::HalfClose)], &[]);
    let link = LinkQuality { delay_ms: 5, cut_every_s: 3, ..LinkQuality::default() };
    assert_rules(
        "a_half_closed_connection_ends_although_the_link_breaks_every_few_seconds",
        &World { link, ..world },
    );
}

/// World 4815: while a slow reader held up its session, the destination of its half-closed connection counted as quiet, and
/// was closed with the rest of the answer unread.
#[test]
fn an_answer_after_half_close_arrives_although_its_reader_is_slow() {
    let destination = Destination::Answer { think_ms: 10, bytes: 6_000_000, closes: false };
    let client = Client { stall_ms: 20_000, ..client(1000, 100, Ending::HalfClose) };
    let world = world(destination, &[client], &[]);
    assert_rules(
        "an_answer_after_half_close_arrives_although_its_reader_is_slow",
        &World { payload: 30_000, has_small_buffer: true, ..world },
    );
}

/// World 3698: with an agent that carries one connection at a time, the flag that ends a connection came after the next
/// client's data. The agent, which acknowledges early messages, refused that data for a moment after the flag, and never
/// looked at it again.
#[test]
fn a_client_after_another_is_served_although_the_flag_between_them_was_late() {
    let clients = [client(0, 387, Ending::Complete), client(60_000, 1, Ending::Complete)];
    let world = world(
        Destination::Echo { late_ms: 3 },
        &[Client { piece: 6, pause_ms: 1000, ..clients[0] }, clients[1]],
        &[],
    );
    let (loss, reorder) = (0.013_637_544_083_660_523, 0.082_562_049_888_197_1);
    assert_rules(
        "a_client_after_another_is_served_although_the_flag_between_them_was_late",
        &World {
            seed: 3698,
            agent: Generation::V3_0,
            link: LinkQuality { loss, reorder, ..LinkQuality::default() },
            ..world
        },
    );
}

/// With an agent that carries one connection at a time: bytes under way to a client that has left are not the next one's.
#[test]
fn a_client_reads_nothing_that_was_meant_for_the_one_before_it() {
    let clients = [client(2000, 100, Ending::Reset { after_ms: 100 }), client(2110, 100, Ending::Complete)];
    let world = world(Destination::Answer { think_ms: 0, bytes: 500_000, closes: false }, &clients, &[]);
    let link = LinkQuality { delay_ms: 75, ..LinkQuality::default() };
    assert_rules(
        "a_client_reads_nothing_that_was_meant_for_the_one_before_it",
        &World { agent: Generation::V3_0, link, ..world },
    );
}

/// World 7617: a client that had sent its request and half-closed while its session was being opened was given up after ten
/// seconds, with an end that looked like an empty answer. The path had died meanwhile.
#[test]
fn a_client_that_waits_for_its_answer_outlasts_a_path_that_died_while_its_session_opened() {
    let answer = Destination::Answer { think_ms: 0, bytes: 1592, closes: false };
    let clients = [Client { destination: 1, ..client(2000, 100, Ending::HalfClose) }];
    let world = world(Destination::Echo { late_ms: 0 }, &clients, &[(2800, Event::Sleep { ms: 204_360 })]);
    let destinations = vec![world.destinations[0], answer];
    let link = LinkQuality { delay_ms: 150, api_ms: 400, ..LinkQuality::default() };
    assert_rules(
        "a_client_that_waits_for_its_answer_outlasts_a_path_that_died_while_its_session_opened",
        &World { destinations, link, ..world },
    );
}

/// World 50325: a shell whose user had gone, with both of its streams, was open for as long as the remote was silent.
#[test]
fn a_silent_shell_ends_with_its_user() {
    let client = Client { piece: 1, pause_ms: 1000, ..client(2571, 0, Ending::Reset { after_ms: 6510 }) };
    let world = world(Destination::Answer { think_ms: 0, bytes: 10_228, closes: true }, &[client], &[]);
    assert_rules(
        "a_silent_shell_ends_with_its_user",
        &World { kind: Kind::Shell { is_encrypted: false }, ..world },
    );
}

/// World 114676: while the agent was paused, the quiet that a half-closed connection waits for went by. Its end was sent with its
/// request, and the destination was closed before its answer.
#[test]
fn an_answer_after_half_close_arrives_although_the_agent_was_paused() {
    let clients = [Client { read_pause_ms: 250, piece: 15_155, ..client(19_934, 14_620, Ending::HalfClose) }];
    let events = [(13_858, Event::Pause { ms: 1344 }), (14_746, Event::DeadPath)];
    let world = world(Destination::Echo { late_ms: 0 }, &clients, &events);
    let link = LinkQuality { jitter_ms: 3, ..LinkQuality::default() };
    assert_rules(
        "an_answer_after_half_close_arrives_although_the_agent_was_paused",
        &World { seed: 114_676, sessions: 4, has_small_buffer: true, link, ..world },
    );
}

/// World 375819: the first client left while the link was down. The agent resent output of that client after the flag between the two
/// was acknowledged.
#[test]
fn a_client_reads_nothing_that_is_resent_for_the_one_before_it() {
    let first = Client { piece: 9, pause_ms: 1000, ..client(0, 556, Ending::Vanish { after_ms: 18_824 }) };
    let clients = [first, client(60_000, 1, Ending::Complete)];
    let world = world(Destination::Echo { late_ms: 0 }, &clients, &[(2274, Event::Outage { ms: 86_244 })]);
    let link = LinkQuality { delay_ms: 20, jitter_ms: 30, cut_every_s: 3, ..LinkQuality::default() };
    assert_rules(
        "a_client_reads_nothing_that_is_resent_for_the_one_before_it",
        &World { seed: 375_819, agent: Generation::V2_3, payload: 30_000, link, ..world },
    );
}

/// The agent acknowledged the second client's request, and the websocket was lost long before the answer: nothing of the first
/// client's was left, so the answer was not in doubt.
#[test]
fn an_answer_after_a_loss_is_that_of_the_client_whose_request_was_acknowledged() {
    let answer = Destination::Answer { think_ms: 7000, bytes: 1000, closes: false };
    let clients = [client(0, 100, Ending::Complete), client(7200, 100, Ending::Complete)];
    let world = world(answer, &clients, &[(9000, Event::Close)]);
    assert_rules(
        "an_answer_after_a_loss_is_that_of_the_client_whose_request_was_acknowledged",
        &World { agent: Generation::V3_0, ..world },
    );
}

/// World 346808: a session was replaced while its path was silent, a moment after it had been heard. The flag that ends it never
/// arrived, and the service was not asked although nothing waited for its answer.
#[test]
fn a_replaced_session_is_ended_at_the_service_although_its_path_was_alive_a_moment_ago() {
    let clients = [
        client(8021, 1, Ending::Complete),
        Client { piece: 1642, pause_ms: 1, ..client(2766, 148_678, Ending::Vanish { after_ms: 16_542 }) },
        client(22_848, 1, Ending::HalfClose),
    ];
    let world = world(Destination::Refuse, &clients, &[(7378, Event::Silence { ms: 21_260 })]);
    let link = LinkQuality { delay_ms: 75, api_ms: 5, ..LinkQuality::default() };
    assert_rules(
        "a_replaced_session_is_ended_at_the_service_although_its_path_was_alive_a_moment_ago",
        &World { seed: 346_808, restart: true, link, ..world },
    );
}

/// World 678317: a path died while a destination was thinking, and nothing was outstanding on it. The wait after half-close went
/// by, and its end closed the destination in the middle of an answer whose beginning was lost.
#[test]
fn an_answer_after_half_close_arrives_although_the_path_died_unnoticed() {
    let clients = [
        Client { piece: 18_188, pause_ms: 1, ..client(28_042, 0, Ending::HalfClose) },
        Client { piece: 9457, pause_ms: 40, ..client(29_224, 861, Ending::Complete) },
    ];
    let answer = Destination::Answer { think_ms: 7000, bytes: 4_964_992, closes: true };
    let world = world(answer, &clients, &[(31_135, Event::DeadPath)]);
    let link = LinkQuality { delay_ms: 5, api_ms: 400, ..LinkQuality::default() };
    assert_rules(
        "an_answer_after_half_close_arrives_although_the_path_died_unnoticed",
        &World { seed: 678_317, payload: 30_000, sessions: 4, link, ..world },
    );
}

/// World 648467: the same with a path that had been cut every few seconds before.
#[test]
fn an_answer_after_half_close_arrives_although_the_last_of_many_paths_died_unnoticed() {
    let clients = [
        Client { piece: 20_000, stall_ms: 12_359, ..client(6984, 145_387, Ending::Complete) },
        Client { piece: 6636, ..client(11_805, 378, Ending::HalfClose) },
        Client { piece: 4297, pause_ms: 40, read_pause_ms: 250, ..client(29_564, 486, Ending::Complete) },
        Client { piece: 96, ..client(18_531, 1308, Ending::Reset { after_ms: 8105 }) },
        Client { piece: 17_666, pause_ms: 1, read_pause_ms: 250, ..client(6196, 20_606, Ending::HalfClose) },
        Client { piece: 7010, pause_ms: 40, read_pause_ms: 250, ..client(22_746, 1597, Ending::HalfClose) },
    ];
    let answer = Destination::Answer { think_ms: 7000, bytes: 7_638_454, closes: true };
    let events = [(8233, Event::Close), (10_366, Event::DeadPath), (17_640, Event::Pause { ms: 778 })];
    let world = world(answer, &clients, &events);
    let (duplicate, cut_every_s) = (0.096_513_663_617_164_68, 3);
    let link = LinkQuality { delay_ms: 1, api_ms: 400, duplicate, cut_every_s, ..LinkQuality::default() };
    assert_rules(
        "an_answer_after_half_close_arrives_although_the_last_of_many_paths_died_unnoticed",
        &World { seed: 648_467, payload: 30_000, sessions: 8, has_small_buffer: true, link, ..world },
    );
}

/// World 627974: a path died while a reader that stalled held up its session, and was silent when the session was read again.
#[test]
fn an_answer_after_half_close_arrives_although_the_path_died_while_a_reader_stalled() {
    let clients = [
        Client { piece: 20_000, stall_ms: 23_603, ..client(16_954, 0, Ending::HalfClose) },
        Client { piece: 16_847, ..client(20_731, 20_050, Ending::HalfClose) },
        Client { piece: 7826, read_pause_ms: 5, ..client(19_348, 16_976, Ending::Complete) },
        Client { piece: 14_123, read_pause_ms: 250, ..client(14_223, 4685, Ending::HalfClose) },
        Client { piece: 6891, pause_ms: 1, read_pause_ms: 250, ..client(8483, 1419, Ending::Complete) },
    ];
    let answer = Destination::Answer { think_ms: 7000, bytes: 5_806_067, closes: true };
    let world = world(answer, &clients, &[(32_605, Event::Outage { ms: 420 })]);
    let link = LinkQuality { api_ms: 80, ..LinkQuality::default() };
    assert_rules(
        "an_answer_after_half_close_arrives_although_the_path_died_while_a_reader_stalled",
        &World {
            seed: 627_974,
            payload: 30_000,
            restart: true,
            sessions: 2,
            has_small_buffer: true,
            link,
            ..world
        },
    );
}

/// World 674507: a slow reader left while the link was down. After the flag between the two was acknowledged, the agent repeated
/// output that had arrived, for seconds in which nothing seemed to come, and then what had been lost.
#[test]
fn a_client_reads_nothing_that_is_resent_after_repetitions_for_the_one_before_it() {
    let ending = Ending::Reset { after_ms: 14_336 };
    let slow = Client { piece: 6189, read_pause_ms: 250, ..client(60_000, 15_540, ending) };
    let clients = [client(0, 160, Ending::Complete), slow, client(120_000, 10_556, Ending::Complete)];
    let answer = Destination::Answer { think_ms: 0, bytes: 6_765_641, closes: false };
    let link = LinkQuality { delay_ms: 150, api_ms: 3000, cut_every_s: 20, ..LinkQuality::default() };
    let world = world(answer, &clients, &[]);
    let agent = Generation::V2_3;
    assert_rules(
        "a_client_reads_nothing_that_is_resent_after_repetitions_for_the_one_before_it",
        &World { agent, payload: 30_000, has_small_buffer: true, link, ..world },
    );
}

/// World 701107: a session was read again after a stalled reader, and messages that had arrived long before made its dead path look
/// alive. The service was not asked to end it.
#[test]
fn a_session_is_ended_at_the_service_although_its_reader_has_just_taken_old_messages() {
    let clients = [Client { piece: 20_000, stall_ms: 14_072, ..client(0, 6371, Ending::Complete) }];
    let answer = Destination::Answer { think_ms: 10, bytes: 2_712_744, closes: false };
    let events = [(2755, Event::Sleep { ms: 2_393_040 }), (15_920, Event::Signal(libc::SIGINT))];
    let world = world(answer, &clients, &events);
    let reorder = 0.145_224_226_832_103_1;
    let link = LinkQuality { delay_ms: 5, jitter_ms: 3, api_ms: 80, reorder, ..LinkQuality::default() };
    assert_rules(
        "a_session_is_ended_at_the_service_although_its_reader_has_just_taken_old_messages",
        &World {
            seed: 701_107,
            agent: Generation::V3_0,
            payload: 30_000,
            has_small_buffer: true,
            link,
            ..world
        },
    );
}

/// World 705529: the end of a pause of the agent was lost, and nothing was left for which the program would have asked. A half-closed
/// client waited for the end of its answer forever.
#[test]
fn a_half_closed_client_does_not_wait_for_the_end_of_a_pause_forever() {
    let clients = [
        Client { piece: 471, pause_ms: 1, ..client(2486, 0, Ending::Reset { after_ms: 13_867 }) },
        Client { piece: 8167, ..client(27_952, 75_099, Ending::HalfClose) },
        Client { piece: 16_806, ..client(26_545, 7268, Ending::Vanish { after_ms: 12_091 }) },
        Client { piece: 10_420, ..client(8995, 35_893, Ending::Complete) },
        Client { piece: 3858, ..client(20_999, 289, Ending::Complete) },
        Client { piece: 1527, pause_ms: 40, ..client(14_389, 746, Ending::Complete) },
    ];
    let events = [(6511, Event::Signal(libc::SIGWINCH)), (29_243, Event::Pause { ms: 381 })];
    let world = world(Destination::Echo { late_ms: 0 }, &clients, &events);
    let link = LinkQuality {
        delay_ms: 150,
        jitter_ms: 30,
        api_ms: 400,
        loss: 0.001_558_354_708_462_324_5,
        reorder: 0.136_145_689_391_924_42,
        ..LinkQuality::default()
    };
    assert_rules(
        "a_half_closed_client_does_not_wait_for_the_end_of_a_pause_forever",
        &World {
            seed: 705_529,
            payload: 30_000,
            restart: true,
            sessions: 8,
            has_small_buffer: true,
            link,
            ..world
        },
    );
}

/// World 2028059: with an agent's small buffer and a slow reader, it took more than a minute until the answer that a cut had
/// delayed was there. Its client was reset.
#[test]
fn an_answer_after_half_close_arrives_although_others_delay_it_for_minutes() {
    let clients = [
        Client { stall_ms: 5511, ..client(27_921, 1826, Ending::HalfClose) },
        Client { piece: 4780, pause_ms: 40, ..client(12_272, 1766, Ending::Vanish { after_ms: 13_794 }) },
        Client {
            piece: 7392,
            pause_ms: 1,
            read_pause_ms: 5,
            ..client(130, 550, Ending::Reset { after_ms: 8141 })
        },
        Client { piece: 336, pause_ms: 1000, ..client(2715, 20_216, Ending::Complete) },
        Client { piece: 78, pause_ms: 1, read_pause_ms: 250, ..client(3366, 0, Ending::Complete) },
    ];
    let answer = Destination::Answer { think_ms: 0, bytes: 3_457_842, closes: false };
    let world = world(answer, &clients, &[]);
    let link = LinkQuality {
        delay_ms: 75,
        reorder: 0.016_041_455_477_751_227,
        cut_every_s: 20,
        ..LinkQuality::default()
    };
    assert_rules(
        "an_answer_after_half_close_arrives_although_others_delay_it_for_minutes",
        &World { seed: 2_028_059, payload: 30_000, sessions: 1, has_small_buffer: true, link, ..world },
    );
}
