//! A bad link under the binary as it is: lost messages, cut connections, slow readers, the service's limit. Every byte
//! must arrive, once and in order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ssm_sim::agent::AgentOptions;
use ssm_sim::{Config, Cut, Faults, Sim};

use crate::harness::api::Started;
use crate::harness::net::{Server, await_byte, connect, echo_through, eventually, opened_port, random_bytes};
use crate::harness::process::{Running, Signal};
use crate::harness::retry::uninterrupted;
use crate::harness::sim::{sim, start, unpaced_sim};
use crate::harness::{PATIENCE, World};

/// A forwarded port to an echo server and what it needs.
struct Forward {
    port: u16,
    id: String,
    plugin: Running,
    _world: World,
}

impl Forward {
    #[track_caller]
    fn start(sim: &Sim, port: u16, settings: &[(&str, &str)]) -> Forward {
        let mut world = World::new();
        settings.iter().for_each(|(name, value)| world.set(name, value));
        let started = Started::port(&sim.endpoint(), port, 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        Forward { port: opened_port(&plugin.stdout), id: started.id().to_owned(), plugin, _world: world }
    }

    /// Ends the plugin and looks for panics.
    #[track_caller]
    fn end(self) {
        self.plugin.signal(Signal::INT);
        self.plugin.finish().assert_ok();
    }
}

#[track_caller]
fn echo_over_a_lossy_link(share: f64, seed: u64) {
    let agent = AgentOptions { pacing: false, ..AgentOptions::default() };
    let faults = Faults { loss_up: share, loss_down: share, seed, ..Faults::default() };
    let sim = start(Config { agent, faults, ..Config::default() });
    let echo = Server::echo();
    let forward = Forward::start(&sim, echo.port(), &[]);
    let bytes = random_bytes(seed, 1_000_000);
    assert!(echo_through(forward.port, &bytes) == bytes, "the echo differs");
    let report = sim.session(&forward.id).expect("the session");
    assert!(report.up.lost > 0 && report.down.lost > 0, "nothing was lost: {report:#?}");
    assert!(!report.limit_exceeded, "{report:#?}");
    forward.end();
}

/// smp#139: the official plugin stalls for good at the first lost acknowledgement.
#[test]
fn echo_with_one_percent_lost_each_way() {
    echo_over_a_lossy_link(0.01, 21);
}

#[test]
fn echo_with_five_percent_lost_each_way() {
    echo_over_a_lossy_link(0.05, 22);
}

#[test]
fn echo_over_ten_cuts() {
    const SIZE: usize = 4_000_000;
    let (sim, echo) = (unpaced_sim(), Server::echo());
    let forward = Forward::start(&sim, echo.port(), &[("SSM_PLUGIN_MESSAGE_RATE", "0")]);
    let bytes = random_bytes(23, SIZE);
    let mut local = connect(forward.port);
    let mut writer = local.try_clone().expect("clone");
    for (part, number) in bytes.chunks(SIZE / 10).zip(1..) {
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| writer.write_all(part));
            let mut answer = vec![0; part.len()];
            let (first, rest) = answer.split_at_mut(part.len() / 3);
            local.read_exact(first).expect("the echo before the cut");
            sim.cut_with(&forward.id, if number % 2 == 0 { Cut::Close } else { Cut::Reset });
            if let Err(error) = local.read_exact(rest) {
                panic!("no more after cut {number}: {error}; {:#?}", sim.session(&forward.id));
            }
            feeder.join().expect("feeder").expect("write");
            assert!(answer == part, "the echo differs around cut {number}");
        });
        // Parts that had been read ahead may have made the cut unnoticed so far.
        eventually("a new connection", || {
            sim.session(&forward.id).is_some_and(|report| report.opens.len() > number)
        });
    }
    forward.end();
}

/// Sends `size` bytes to each client that sends one kind of byte, and counts the clients that send another.
fn flood(size: usize) -> Server {
    Server::start(move |mut stream| {
        let mut first = [0; 1];
        if stream.read_exact(&mut first).is_ok() {
            let _ = stream.write_all(&random_bytes(u64::from(first[0]), size));
            let _ = stream.read(&mut first);
        }
    })
}

/// A connection that asks for a flood and does not read it, and one that asks for another.
#[track_caller]
fn stalled_and_running(forward: &Forward) -> (TcpStream, TcpStream) {
    let mut stalled = connect(forward.port);
    stalled.write_all(&[1]).expect("write");
    await_byte(&stalled);
    let mut running = connect(forward.port);
    running.write_all(&[2]).expect("write");
    (stalled, running)
}

#[test]
fn a_stalled_reader_next_to_a_running_transfer() {
    const SIZE: usize = 6_000_000;
    let (sim, server) = (unpaced_sim(), flood(SIZE));
    let forward = Forward::start(&sim, server.port(), &[("SSM_PLUGIN_BUFFER", "8388608")]);
    let (mut stalled, mut running) = stalled_and_running(&forward);
    let mut bytes = vec![0; SIZE];
    running.read_exact(&mut bytes).expect("the transfer beside the stalled one");
    assert!(bytes == random_bytes(2, SIZE), "other bytes");
    stalled.read_exact(&mut bytes).expect("the stalled one's bytes");
    assert!(bytes == random_bytes(1, SIZE), "the stalled one got other bytes");
    forward.end();
}

/// Past the bounds the session waits; when the slow reader is gone, it continues.
#[test]
fn a_reader_that_never_reads_and_leaves_frees_the_others() {
    const SIZE: usize = 24_000_000;
    let (sim, server) = (unpaced_sim(), flood(SIZE));
    let forward = Forward::start(&sim, server.port(), &[("SSM_PLUGIN_BUFFER", "8388608")]);
    let (stalled, mut running) = stalled_and_running(&forward);
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let mut before = 0;
            // Until nothing moves any more, or the transfer is done.
            while Instant::now() < deadline && !gone.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(300));
                let sent = sim.session(&forward.id).map_or(0, |report| report.down.bytes);
                if sent == before {
                    break;
                }
                before = sent;
            }
            let _ = stalled.shutdown(Shutdown::Both);
            drop(stalled);
        });
        let mut bytes = vec![0; SIZE];
        running.read_exact(&mut bytes).expect("the transfer beside the one that left");
        gone.store(true, Ordering::SeqCst);
        assert!(bytes == random_bytes(2, SIZE), "other bytes");
    });
    forward.end();
}

#[test]
fn an_answer_after_half_close_over_a_lossy_link() {
    let server = Server::start(|mut stream| {
        let mut request = [0; 18];
        if stream.read_exact(&mut request).is_ok() {
            std::thread::sleep(Duration::from_millis(300));
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
        }
    });
    let faults = Faults { loss_up: 0.05, loss_down: 0.05, seed: 24, ..Faults::default() };
    let sim = start(Config { faults, ..Config::default() });
    let forward = Forward::start(&sim, server.port(), &[]);
    for _ in 0..3 {
        let mut local = connect(forward.port);
        local.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
        local.shutdown(Shutdown::Write).expect("half-close");
        let mut answer = String::new();
        local.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "HTTP/1.0 200 OK\r\n\r\nhello");
    }
    forward.end();
}

#[test]
fn two_hundred_connections_over_a_lossy_link() {
    let agent = AgentOptions { pacing: false, ..AgentOptions::default() };
    let faults = Faults { loss_up: 0.01, loss_down: 0.01, seed: 25, ..Faults::default() };
    let sim = start(Config { agent, faults, ..Config::default() });
    let echo = Server::echo();
    let forward = Forward::start(&sim, echo.port(), &[]);
    let streams: Vec<TcpStream> = (0..200).map(|_| connect(forward.port)).collect();
    let threads: Vec<_> = streams
        .into_iter()
        .zip(0u64..)
        .map(|(mut stream, seed)| {
            std::thread::spawn(move || {
                let sent = random_bytes(seed, 2000);
                stream.write_all(&sent)?;
                let mut answer = vec![0; sent.len()];
                stream.read_exact(&mut answer)?;
                Ok::<bool, std::io::Error>(answer == sent)
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let intact = thread.join().expect("thread");
        assert!(matches!(intact, Ok(true)), "connection {number}: {intact:?}");
    }
    forward.end();
}

/// The service's limit in force and nothing set: never cut, and nearly all of what the limit leaves.
#[test]
fn a_long_upload_keeps_to_the_services_limit() {
    const SIZE: usize = 20_500_000;
    let sink = Server::start(|mut stream| {
        let (mut left, mut buffer) = (SIZE, vec![0; 1 << 16]);
        while left > 0 {
            match uninterrupted(|| stream.read(&mut buffer)) {
                Ok(read @ 1..) => left -= read,
                _ => return,
            }
        }
        let _ = stream.write_all(b"!");
        let _ = stream.read(&mut buffer);
    });
    let sim = sim();
    let forward = Forward::start(&sim, sink.port(), &[]);
    let mut local = connect(forward.port);
    let begin = Instant::now();
    local.write_all(&random_bytes(26, SIZE)).expect("write");
    local.read_exact(&mut [0; 1]).expect("all of it has arrived");
    let rate = SIZE as f64 / begin.elapsed().as_secs_f64();
    let report = sim.session(&forward.id).expect("the session");
    assert!(!report.limit_exceeded && report.opens.len() == 1, "{report:#?}");
    assert!(
        // What is sent evenly may arrive in bunches.
        report.up.peak_1s <= 128 + 900 + 100 && report.up.peak_2s < 2000,
        "{report:#?}"
    );
    // 0.92 MB/s on an idle machine; the tests share theirs.
    assert!(rate > 0.6e6, "{rate:.0} bytes a second");
    forward.end();
}
