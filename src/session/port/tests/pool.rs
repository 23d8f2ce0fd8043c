//! A pool in virtual time: sessions are started by the test, and their agents are the test.

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tokio::sync::{mpsc, oneshot};

use super::super::proxy::{Protocol, encode};
use super::super::tests::{Agent, Reports, budget, connection, proxied, settle, turn};
use super::*;
use crate::aws::{AwsError, ErrorKind};

/// A StartSession that waits for its answer.
type Asked = oneshot::Sender<Result<LiveSession, StartError>>;

struct World {
    pool: Pool,
    asked: Arc<Mutex<VecDeque<Asked>>>,
    starts: Arc<AtomicUsize>,
    reports: (Reports, mpsc::Receiver<(ConnectionNumber, FromConnection)>),
    number: ConnectionNumber,
    events: Vec<PoolEvent>,
}

impl World {
    fn new(plan: Plan) -> World {
        let (asked, starts) = (Arc::<Mutex<VecDeque<Asked>>>::default(), Arc::<AtomicUsize>::default());
        let (asking, counting) = (Arc::clone(&asked), Arc::clone(&starts));
        let start: Start = Box::new(move || {
            let (answer, answered) = oneshot::channel();
            asking.lock().unwrap().push_back(answer);
            counting.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { answered.await.unwrap() })
        });
        let pool = Pool::without_lane(plan, Some(start), &budget());
        World { pool, asked, starts, reports: mpsc::channel(64), number: 0, events: Vec::new() }
    }

    fn on_demand(sessions: usize) -> World {
        World::new(Plan::OnDemand).with(|pool| pool.with_sessions(sessions))
    }

    fn socks() -> World {
        World::on_demand(1).with(Pool::for_socks)
    }

    fn with(self, change: impl FnOnce(Pool) -> Pool) -> World {
        World { pool: change(self.pool), ..self }
    }

    /// A lane that is ready, as the first is, and its agent.
    fn add_ready(&mut self) -> Agent {
        let (agent, session) = Agent::ready("first");
        self.pool.lanes.push(Lane::ready(session, &self.pool.budget));
        agent
    }

    /// A connection, with what its client has sent already.
    async fn connect_with(&mut self, early: &[u8]) -> TcpStream {
        self.number += 1;
        let (connection, mut client) = if self.pool.speaks_socks {
            proxied(Protocol::Socks5, self.number, &self.reports.0)
        } else {
            connection(self.number, &self.reports.0)
        };
        client.write_all(early).unwrap();
        self.pool.take(self.number, connection);
        self.run().await;
        client
    }

    /// A connection that stays, without a word.
    async fn connect(&mut self) -> TcpStream {
        let client = self.connect_with(b"").await;
        if !self.pool.speaks_socks {
            self.pass(PROBE).await;
        }
        client
    }

    /// Lets the pool and its connections do everything that there is to do now.
    async fn run(&mut self) {
        for _ in 0..2 {
            settle().await;
            self.act();
        }
    }

    fn act(&mut self) {
        while let Ok((number, report)) = self.reports.1.try_recv() {
            self.pool.handle_report(number, report);
        }
        self.pool.transmit();
        self.start_lanes();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.pool.poll_event(&mut cx) {
            self.events.push(event);
            self.pool.transmit();
            self.start_lanes();
        }
        if self.pool.next_timeout().is_some_and(|at| at <= now()) {
            let events = self.pool.handle_timeout(now());
            self.events.extend(events);
        }
    }

    /// As pools do where nothing limits them.
    fn start_lanes(&mut self) {
        while self.pool.need(now()).is_some() {
            self.pool.start_lane();
        }
    }

    async fn pass(&mut self, time: Duration) {
        let end = now() + time;
        self.pass_until(end, |_| false).await;
    }

    /// Lets time pass until `is_over`, at most until `end`. Clients do nothing meanwhile, so that sockets are waited for at
    /// the beginning and at the end only.
    async fn pass_until(&mut self, end: Instant, is_over: impl Fn(&World) -> bool) {
        tokio::time::sleep(STEP).await;
        self.run().await;
        while now() < end && !is_over(self) {
            tokio::time::sleep(STEP).await;
            for _ in 0..2 {
                turn().await;
                self.act();
            }
        }
        if cfg!(not(target_os = "linux")) {
            self.run().await;
        }
    }

    fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// The oldest StartSession gets a session.
    async fn succeed(&mut self) -> Agent {
        let (agent, session) = Agent::ready("another");
        assert!(self.asked.lock().unwrap().pop_front().unwrap().send(Ok(session)).is_ok());
        self.run().await;
        agent
    }

    /// The oldest StartSession fails.
    async fn fail(&mut self, kind: ErrorKind) {
        let error = StartError::Aws(AwsError::new("ssm:StartSession", kind, "no"));
        assert!(self.asked.lock().unwrap().pop_front().unwrap().send(Err(error)).is_ok());
        self.run().await;
    }

    /// Returns the time until another session is requested.
    async fn until_next_start(&mut self) -> Duration {
        let (before, begin) = (self.starts(), now());
        self.pass_until(begin + 100 * SECOND, |world| world.starts() > before).await;
        now() - begin
    }

    fn loads(&self) -> Vec<usize> {
        self.pool.lanes.iter().map(Lane::len).collect()
    }

    fn told(&self) -> Vec<&str> {
        let text = |event: &PoolEvent| match event {
            PoolEvent::Failure(text) | PoolEvent::Tell(Status::Message { text, .. }) => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).map(|text| &*text.leak()).collect()
    }
}

/// Bytes that have arrived, or `None` while none have: empty at the end.
fn received(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    match client.read(&mut buffer) {
        Ok(count) => Some(buffer[..count].to_vec()),
        Err(error) if error.kind() == IoErrorKind::WouldBlock => None,
        Err(error) if error.kind() == IoErrorKind::ConnectionReset => Some(Vec::new()),
        Err(error) => panic!("{error}"),
    }
}

fn reply(client: &mut TcpStream) -> Option<u8> {
    received(client).map(|bytes| bytes[1])
}

fn is_closed(client: &mut TcpStream) -> bool {
    received(client).is_some_and(|bytes| bytes.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_to_the_lane_with_the_fewest() {
    let mut world = World::on_demand(2);
    let _agents = [world.add_ready(), world.add_ready()];
    let _first = world.connect().await;
    let second = world.connect().await;
    let _third = world.connect().await;
    assert_eq!(world.loads(), [2, 1]);
    drop(second);
    // A client that has said nothing and closes leaves at once.
    world.pass(SECOND).await;
    let _fourth = world.connect().await;
    let _fifth = world.connect().await;
    let loads = world.loads();
    assert!(loads[0].abs_diff(loads[1]) <= 1, "{loads:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_started_for_connections_up_to_the_number_allowed() {
    let mut world = World::on_demand(3);
    world.pass(10 * SECOND).await;
    assert_eq!(world.starts(), 0);
    let mut clients = Vec::new();
    for expected in [1, 2, 3, 3, 3] {
        clients.push(world.connect().await);
        assert_eq!(world.starts(), expected);
    }
    let _first = world.succeed().await;
    assert_eq!(world.loads(), [5, 0, 0], "they have waited for any");
    let _others = [world.succeed().await, world.succeed().await];
    clients.push(world.connect().await);
    assert_eq!(world.loads(), [5, 1, 0]);
}

/// `nc -z`, a wait loop, a load balancer's check.
#[tokio::test(start_paused = true)]
async fn a_probe_starts_no_session() {
    let mut world = World::on_demand(4);
    for _ in 0..50 {
        let probe = world.connect_with(b"").await;
        drop(probe);
        world.pass(2 * PROBE).await;
    }
    assert_eq!((world.starts(), world.pool.len()), (0, 0));
    // One that stays may wait for a server that speaks first, one that has said something does not need to.
    let _silent = world.connect_with(b"").await;
    assert_eq!(world.starts(), 0);
    world.pass(PROBE).await;
    assert_eq!(world.starts(), 1);
    let _eager = world.connect_with(b"x").await;
    assert_eq!(world.starts(), 2);
    // Nor does a probe of a port whose session is ready ask for another.
    let mut world = World::on_demand(4);
    let _agent = world.add_ready();
    let _client = world.connect_with(b"x").await;
    for _ in 0..5 {
        drop(world.connect_with(b"").await);
        world.pass(2 * PROBE).await;
    }
    assert_eq!(world.starts(), 0);
}

/// 2^31 connections later.
#[tokio::test(start_paused = true)]
async fn a_session_without_stream_ids_is_followed_by_another() {
    for plan in [Plan::OnDemand, Plan::Fixed] {
        let mut world = World::new(plan);
        let mut agent = world.add_ready();
        world.pool.lanes[0].leave_ids(1);
        let first = world.connect_with(b"x").await;
        let _second = world.connect_with(b"y").await;
        assert_eq!(world.starts(), 1, "{plan:?}: the next connection needs another");
        let _other = world.succeed().await;
        world.run().await;
        assert_eq!(world.loads(), if plan == Plan::OnDemand { [1, 1] } else { [1, 0] }, "{plan:?}");
        drop(first);
        agent.finish(u32::MAX);
        world.run().await;
        assert_eq!(world.pool.lanes.len(), 1, "{plan:?}: the first has ended");
        assert_eq!(world.pool.take_remains().count(), 1);
        assert!(!world.events.iter().any(|event| matches!(event, PoolEvent::Over(_))), "{:?}", world.events);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_pool_starts_all_at_once_and_ends_with_its_first() {
    let mut world = World::new(Plan::Fixed).with(|pool| pool.with_sessions(3));
    let first = world.add_ready();
    world.run().await;
    assert_eq!(world.starts(), 2);
    let (second, _third) = (world.succeed().await, world.succeed().await);
    second.close("idle");
    world.run().await;
    assert_eq!(world.starts(), 2, "not at once");
    let delay = world.until_next_start().await;
    assert!(delay >= SECOND && delay <= 5 * SECOND / 2, "{delay:?}");
    first.close("over");
    world.run().await;
    assert!(matches!(world.events.last(), Some(PoolEvent::Over(End::Closed(output))) if output == "over"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_one_at_a_time_is_tried_with_growing_delays() {
    let mut world = World::on_demand(3);
    let clients = [world.connect().await, world.connect().await, world.connect().await];
    for _ in 0..3 {
        world.fail(ErrorKind::Unreachable).await;
    }
    // The three failures at once have made one step.
    let mut delays = Vec::new();
    for _ in 0..6 {
        delays.push(world.until_next_start().await);
        world.pass(3 * SECOND).await;
        assert_eq!(world.asked.lock().unwrap().len(), 1, "one at a time");
        world.fail(ErrorKind::TargetNotConnected).await;
    }
    assert!(delays[0] >= SECOND / 5 && delays[0] <= SECOND, "{delays:?}");
    assert!(delays.iter().skip(4).all(|delay| *delay >= 4 * SECOND && *delay <= 9 * SECOND), "{delays:?}");
    assert_eq!(world.told().len(), 1, "the reason is told once: {:?}", world.told());
    // One that works serves all, and the others are asked for again.
    world.until_next_start().await;
    let first = world.succeed().await;
    assert_eq!(world.loads(), [3, 0, 0]);
    let agents = [first, world.succeed().await, world.succeed().await];
    world.pass(STEADY_AFTER).await;
    agents.iter().for_each(|agent| agent.close("idle"));
    world.run().await;
    drop(clients);
    world.pass(SECOND).await;
    let before = world.starts();
    let _client = world.connect().await;
    assert_eq!(world.starts(), before + 1, "at once");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_again_that_nobody_waits_for() {
    let mut world = World::on_demand(4);
    let client = world.connect().await;
    world.fail(ErrorKind::Unreachable).await;
    drop(client);
    world.pass(60 * SECOND).await;
    assert_eq!(world.starts(), 1);
    let _client = world.connect().await;
    assert_eq!(world.starts(), 2, "the pause is over");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_is_followed_by_another_for_the_next_connection_only() {
    let mut world = World::on_demand(4);
    let mut open = world.connect().await;
    let agent = world.succeed().await;
    world.pass(STEADY_AFTER).await;
    agent.close("idle");
    world.run().await;
    assert!(is_closed(&mut open));
    assert!(
        matches!(world.events.last(), Some(PoolEvent::Tell(Status::SessionEnded { reason, .. })) if reason == "idle")
    );
    world.pass(600 * SECOND).await;
    assert_eq!(world.starts(), 1);
    let _next = world.connect().await;
    assert_eq!(world.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_denied_start_closes_those_that_wait_is_told_once_and_does_not_spin() {
    let mut world = World::on_demand(2);
    let mut waiting = [world.connect().await, world.connect().await];
    for _ in 0..2 {
        world.fail(ErrorKind::Denied).await;
    }
    assert!(waiting.iter_mut().all(is_closed));
    let begin = now();
    let mut attempts = 0;
    while now() < begin + 60 * SECOND {
        let mut client = world.connect().await;
        attempts += 1;
        if !world.asked.lock().unwrap().is_empty() {
            world.fail(ErrorKind::Denied).await;
        }
        assert!(is_closed(&mut client));
        world.pass(SECOND / 10).await;
    }
    assert!(attempts > 200 && world.starts() < 20, "{} starts for {attempts}", world.starts());
    let told = world.told();
    assert!(matches!(told[..], [text] if text.contains("allow ssm:StartSession")), "{told:?}");
    // As soon as it works, all is well.
    world.pass(10 * SECOND).await;
    let _client = world.connect().await;
    let _agent = world.succeed().await;
    assert_eq!(world.loads(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_minutes_and_a_socks_client_for_less() {
    for (mut world, wait) in [(World::on_demand(1), WAIT), (World::socks(), WAIT_SOCKS)] {
        let mut client = world.connect().await;
        world.pass(wait - SECOND).await;
        assert_eq!(received(&mut client), None);
        world.pass(2 * SECOND).await;
        let last = received(&mut client).unwrap();
        assert!(last.is_empty() || last == encode(Protocol::Socks5, Reply::HostUnreachable), "{last:?}");
        assert_eq!(world.pool.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_may_have_gone_wait_less() {
    let mut world = World::on_demand(1);
    let full = world.connect_with(&[1; 64 << 10]).await;
    let half_closed = world.connect_with(b"the whole request").await;
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    let probe = world.connect().await;
    probe.shutdown(std::net::Shutdown::Write).unwrap();
    world.run().await;
    assert_eq!(world.pool.waiting.len(), 2, "who sends nothing wants nothing");
    world.pass(12 * SECOND).await;
    assert_eq!(world.pool.waiting.len(), 1);
    drop(full);
    world.pass(12 * SECOND).await;
    assert_eq!(world.pool.waiting.len(), 0);
    // One that stays, and of whose end nothing would be seen.
    let _full = world.connect_with(&[1; 64 << 10]).await;
    world.pass(50 * SECOND).await;
    assert_eq!(world.pool.waiting.len(), 1);
    world.pass(12 * SECOND).await;
    assert_eq!(world.pool.waiting.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_is_bounded() {
    let mut world = World::on_demand(1);
    world.pool.max_waiting = 2;
    let _waiting = [world.connect().await, world.connect().await];
    assert!(!world.pool.may_take());
    let _agent = world.succeed().await;
    assert!(world.pool.may_take());
}

/// The agent has resolved the name when the session began: an old session is replaced, a young one has just looked.
#[tokio::test(start_paused = true)]
async fn a_session_whose_destination_was_refused_is_replaced_when_it_is_old_and_unused() {
    let mut world = World::on_demand(1);
    let mut agent = world.add_ready();
    let mut first = world.connect_with(b"x").await;
    let mut other = world.connect_with(b"y").await;
    agent.refuse(3);
    world.run().await;
    assert!(is_closed(&mut first));
    drop(first);
    world.pass(10 * SECOND).await;
    let mut third = world.connect_with(b"z").await;
    assert_eq!(world.starts(), 0, "somebody uses it");
    agent.refuse(5);
    agent.refuse(7);
    world.run().await;
    assert!(is_closed(&mut other) && is_closed(&mut third));
    drop((other, third));
    world.run().await;
    let _fourth = world.connect_with(b"x").await;
    assert_eq!((world.starts(), world.pool.lanes.len()), (1, 1), "another looks the name up");
    assert_eq!(world.pool.take_remains().count(), 1, "the old one is ended");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stays_away_costs_a_session_now_and_then() {
    let mut world = World::on_demand(1);
    let mut agent = world.add_ready();
    let (begin, mut stream, mut starts) = (now(), 3, Vec::new());
    while now() < begin + 600 * SECOND {
        let client = world.connect_with(b"x").await;
        if !world.asked.lock().unwrap().is_empty() {
            agent = world.succeed().await;
            stream = 3;
            starts.push(now() - begin);
        }
        agent.refuse(stream);
        stream += 2;
        world.run().await;
        drop(client);
        world.pass(SECOND).await;
    }
    assert!(starts[0] >= 3 * SECOND, "it had just looked: {starts:?}");
    assert!((5..20).contains(&starts.len()), "{starts:?}");
    // Once it is there, the next failover is found as soon as the first.
    let _client = world.connect_with(b"x").await;
    agent.write(stream, b"hello");
    world.run().await;
    agent.close("idle");
    world.run().await;
    assert_eq!(world.pool.retry.refresh_age, Retry::new(Plan::OnDemand).refresh_age);
}

#[tokio::test(start_paused = true)]
async fn a_socks_client_is_answered_when_it_is_known_how() {
    let mut world = World::socks();
    let mut agent = world.add_ready();
    let mut refused = world.connect().await;
    assert_eq!(reply(&mut refused), None);
    agent.refuse(3);
    world.run().await;
    assert_eq!(reply(&mut refused), Some(Reply::HostUnreachable as u8));
    assert!(is_closed(&mut refused));
    // Nothing tells that a destination is there which waits for the client, except that no refusal comes.
    let mut patient = world.connect().await;
    assert_eq!(reply(&mut patient), None);
    world.pass(2 * SECOND).await;
    assert_eq!(reply(&mut patient), Some(Reply::Succeeded as u8));
    let mut greeted = world.connect().await;
    agent.write(7, b"220 hello");
    world.run().await;
    let expected = [&encode(Protocol::Socks5, Reply::Succeeded)[..], b"220 hello"].concat();
    assert_eq!(received(&mut greeted), Some(expected));
    let mut next = world.connect().await;
    assert_eq!(reply(&mut next), Some(Reply::Succeeded as u8), "the destination is there");
    // Its end without a refusal is an end.
    let mut world = World::socks();
    let mut agent = world.add_ready();
    let mut short = world.connect().await;
    agent.finish(3);
    world.run().await;
    assert_eq!(reply(&mut short), Some(Reply::Succeeded as u8));
    // Nor is it another's refusal, however long ago that was.
    let mut world = World::socks();
    let mut agent = world.add_ready();
    let _refused = world.connect().await;
    agent.refuse(3);
    world.run().await;
    let mut short = world.connect().await;
    agent.finish(5);
    world.run().await;
    assert_eq!(reply(&mut short), Some(Reply::Succeeded as u8));
}

/// An agent ends a session to an address that it may not forward to.
#[tokio::test(start_paused = true)]
async fn socks_clients_are_refused_for_a_while_when_the_session_ends_by_itself() {
    let mut world = World::socks();
    let begin = now();
    let (mut attempts, mut refused) = (0, 0);
    while now() < begin + 60 * SECOND {
        let mut client = world.connect().await;
        attempts += 1;
        if !world.asked.lock().unwrap().is_empty() {
            world.succeed().await.close("Forwarding to IP address 10.0.0.2 is forbidden.");
            world.run().await;
        }
        refused += usize::from(reply(&mut client) == Some(Reply::HostUnreachable as u8));
        world.pass(SECOND / 5).await;
    }
    assert_eq!(refused, attempts);
    assert!(attempts > 100 && world.starts() < 20, "{} starts for {attempts}", world.starts());
}

/// A client that is less patient than StartSession comes again.
#[tokio::test(start_paused = true)]
async fn a_session_whose_client_has_gone_is_there_for_the_next() {
    let mut world = World::socks();
    let client = world.connect().await;
    drop(client);
    world.run().await;
    let _agent = world.succeed().await;
    world.pass(10 * SECOND).await;
    assert_eq!((world.starts(), world.loads()), (1, vec![0]));
    let _client = world.connect().await;
    assert_eq!((world.starts(), world.loads()), (1, vec![1]));
}

/// Longer than a probe stays.
const PROBE: Duration = Duration::from_millis(60);
const STEP: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
