//! Local clients that try to spend the user's StartSession quota.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ssm_sim::{SessionState, Sim};

use crate::harness::World;
use crate::harness::net::Server;
use crate::harness::sim::{assert_all_ended, unpaced_sim};
use crate::port::socks::Proxy;

/// A SOCKS request of [`NAME`] on the port `number`, without a wait for any answer.
fn ask(proxy: &Proxy, number: u16) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    let head = [&[5, 1, 0, 5, 1, 0, 3, NAME.len() as u8], NAME.as_bytes(), &number.to_be_bytes()].concat();
    stream.write_all(&head).ok()?;
    // The greeting's answer: the request is being read.
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.read_exact(&mut [0; 2]).ok()?;
    Some(stream)
}

/// Asks for one destination after another for a while, each client gone at once; the seconds it took.
fn flood(proxy: &Proxy, time: Duration) -> f64 {
    let begin = Instant::now();
    for number in 1..u16::MAX {
        if begin.elapsed() > time {
            break;
        }
        drop(ask(proxy, number));
    }
    begin.elapsed().as_secs_f64()
}

fn open_sessions(sim: &Sim) -> usize {
    sim.sessions().iter().filter(|session| session.state != SessionState::Ended).count()
}

fn proxy(world: &mut World, sim: &Sim, server: &Server) -> Proxy {
    sim.set_host(NAME, "127.0.0.1");
    Proxy::start(world, sim, server.port())
}

/// Measured before there was a bucket: 4,637 calls in 6 s.
#[test]
fn clients_that_ask_for_ever_new_destinations_start_two_sessions_a_second_after_the_burst() {
    ever_new_destinations(Duration::from_secs(6));
}

/// Asks for one destination after another for `time`. Returns the number of sessions that were started, after it has
/// asserted that there were not too many.
#[track_caller]
pub(super) fn ever_new_destinations(time: Duration) -> u64 {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    let proxy = proxy(&mut world, &sim, &echo);
    let seconds = flood(&proxy, time);
    let (starts, most) = (sim.requests().start, 1.0 + BURST + RATE * (seconds + 1.0));
    assert!(starts as f64 <= most, "{starts} starts in {seconds} s");
    proxy.end();
    assert_all_ended(&sim);
    starts
}

/// Measured before there was a bucket: 6,148 calls in 4 s.
#[test]
fn a_throttled_caller_asks_less() {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    let proxy = proxy(&mut world, &sim, &echo);
    sim.refuse_starts(Some("ThrottlingException"));
    let before = sim.requests().start;
    let seconds = flood(&proxy, Duration::from_secs(6));
    let starts = sim.requests().start - before;
    // Each answer halves what is left: of the burst only what was on its way at the first is asked for.
    assert!(starts as f64 <= BURST + RATE * seconds / 2.0, "{starts} starts in {seconds} s");
    sim.refuse_starts(None);
    let errors = proxy.end();
    assert!(errors.matches("session starts").count() <= 1, "{errors}");
    assert_all_ended(&sim);
}

/// Measured before there was a limit for all destinations: 263 sessions open at once.
#[test]
fn socks_clients_have_32_sessions_however_many_may_share_a_destination() {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    world.set("SSM_PLUGIN_SESSIONS", "8");
    let proxy = proxy(&mut world, &sim, &echo);
    let names: Vec<_> = (0..40).map(|number| format!("db{number}.internal")).collect();
    names.iter().for_each(|name| sim.set_host(name, "127.0.0.1"));
    let port = proxy.port;
    let clients: Vec<_> = names
        .into_iter()
        .flat_map(|name| std::iter::repeat_n(name, 4))
        .map(|name| {
            let to = echo.port();
            std::thread::spawn(move || {
                let mut stream = crate::harness::net::connect(port);
                let head = [&[5, 1, 0, 5, 1, 0, 3, name.len() as u8], name.as_bytes(), &to.to_be_bytes()];
                stream.write_all(&head.concat()).expect("write");
                let _ = stream.set_read_timeout(Some(Duration::from_secs(4)));
                let _ = stream.read(&mut [0; 12]);
                stream
            })
        })
        .collect();
    let mut most = 0;
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        most = most.max(open_sessions(&sim));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The eight of the port's own destination are not of SOCKS clients.
    assert!(most <= 32 + 8, "{most} sessions were open at once");
    drop(clients);
    proxy.end();
    assert_all_ended(&sim);
}

const NAME: &str = "db.internal";
const BURST: f64 = 64.0;
/// A second.
const RATE: f64 = 2.0;
