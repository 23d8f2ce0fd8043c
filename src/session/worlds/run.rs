//! One world, from the start of its program to its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ssm_sim::agent::{AgentOptions, Generation};
use ssm_sim::{Config, DEFAULT_TARGET, Inside, KmsOptions, SessionState};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::cloud::{self, Cloud};
use super::descriptors::ScarcePorts;
use super::local::{self, Doors, Fate, SOCKS_PORT, port_of};
use super::log::Log;
use super::machine;
use super::remote::{self, EXIT_CODE, Served};
use super::user::{Running, StandardStreams};
use super::wire::WireControl;
use super::world::{Event, Kind, World};
use crate::aws;
use crate::cli::StartSession;
use crate::link::{Network, StreamHosts};
use crate::output::Style;
use crate::session::port::{MemoryPorts, MemoryStream, Ports};
use crate::session::{self, Access, Run};
use crate::settings::{LoadedSettings, Settings, Subject};

/// Runs a world. Returns the digest of its events, its faults and its last events, each on a line.
pub(super) async fn run(world: World) -> String {
    let log = Log::default();
    let tasks = LocalSet::new();
    tasks.run_until(play(&world, &log)).await;
    drop(tasks);
    let (digest, faults, lines) = log.report(LAST_EVENTS);
    let mut text = format!("{digest}\n");
    for fault in &faults {
        text += &format!("fault: {fault}\n");
    }
    for line in lines {
        text += &format!("{line}\n");
    }
    text
}

/// The simulator's settings.
fn config(world: &World, log: &Log, served: &Served) -> Config {
    let agent = AgentOptions {
        generation: world.agent,
        pacing: false,
        payload: world.payload,
        destinations: remote::network(world, log, served),
        programs: remote::programs(world, log, served),
        ..AgentOptions::default()
    };
    let is_encrypted = world.kind == Kind::Shell { is_encrypted: true };
    let kms = KmsOptions {
        encrypt_shell: is_encrypted.then(|| "alias/worlds".to_owned()),
        challenge: world.seed.is_multiple_of(2),
        ..KmsOptions::default()
    };
    let faults = world.link.faults(world.seed);
    Config { agent, kms, faults, stream_base: Some("ws://127.0.0.1:1".to_owned()), ..Config::default() }
}

/// The session of argv, started at the service.
fn start(world: &World, cloud: &Cloud) -> StartSession {
    let request = request(world);
    let answer = cloud.inside.call("AmazonSSM.StartSession", &request).expect("a session");
    let opened = cloud::opened("ssm:StartSession", &answer).expect("a session");
    StartSession {
        session_id: opened.session_id,
        stream_url: opened.stream_url,
        token: opened.token,
        region: "us-east-1".to_owned(),
        profile: None,
        target: Some(DEFAULT_TARGET.to_owned()),
        request: Some(request),
        endpoint: None,
        legacy: false,
        response_is_argument: false,
    }
}

async fn play(world: &World, log: &Log) {
    let served = Served::default();
    let config = config(world, log, &served);
    let cloud = Cloud::new(Inside::new(config).expect("a service"), world.link, log.clone());
    let network = Network::new(StreamHosts::default(), None).with_connector(Arc::new(cloud.clone()));
    let network = Arc::new(network);
    let aws = Arc::new(aws::Client::with_api(Arc::new(cloud.clone())));
    let doors =
        Doors { ports: MemoryPorts::default(), standard: RefCell::default(), served: Arc::clone(&served) };
    let (running, is_running) = watch::channel(Running::Yes);
    if world.is_text() {
        let streams = StandardStreams::new(machine::replace_streams()).expect("pipes");
        let (near, far) = MemoryStream::pair();
        doors.standard.replace(Some(near));
        tokio::task::spawn_local(streams.carry(far, is_running));
    }
    let program = session::run(Run {
        start: start(world, &cloud),
        access: Some(Access { network: Arc::clone(&network), aws }),
        settings: settings(world),
        recording: None,
        parent: None,
        style: Style::Official,
        script: None,
        ports: Ports::Within(Arc::new(ScarcePorts {
            ports: doors.ports.clone(),
            descriptors: cloud.descriptors.clone(),
        })),
    });
    let is_over = Rc::new(Cell::new(false));
    let events = tokio::task::spawn_local(happen(world.clone(), cloud.clone(), network, log.clone()));
    let clients =
        tokio::task::spawn_local(all_clients(world.clone(), doors, log.clone(), Rc::clone(&is_over)));
    let mut exit_code = None;
    match timeout(LONGEST, program).await {
        Ok(outcome) => {
            log.note(format_args!("the program ends: {outcome:?}"));
            exit_code = outcome.exit_code;
        }
        Err(_) => log.fault("the program does not end"),
    }
    running.send_replace(if world.is_gentle() { Running::Over } else { Running::Failed });
    is_over.set(true);
    let may_leave_sessions = cloud.has_trouble() || machine::is_insisted();
    let fates = timeout(AFTERWARDS, clients).await;
    let fates = fates.map_or_else(|_| vec![None; world.clients.len()], |fates| fates.expect("no panic"));
    events.abort();
    local::judge(world, &fates, log);
    let is_reported = world.kind == Kind::Command { is_separate: true } && world.agent == Generation::V3_3;
    if is_reported && fates == [Some(Fate::Complete)] && world.is_gentle() && exit_code != Some(EXIT_CODE) {
        log.fault(format_args!("the command's exit code is {EXIT_CODE}, not {exit_code:?}"));
    }
    look_back(world, &cloud, may_leave_sessions, log).await;
}

/// Checks the service and the runtime after the end of the program, which may have left sessions open for a reason that was
/// there then.
async fn look_back(world: &World, cloud: &Cloud, may_leave_sessions: bool, log: &Log) {
    sleep(Duration::from_secs(3)).await;
    for session in cloud.inside.sessions() {
        let may_be_open = may_leave_sessions || cloud.may_leave_sessions();
        if session.state != SessionState::Ended && !may_be_open {
            log.fault(format_args!("session {} is left open: {:?}", session.id, session.state));
        }
        let agent = session.agent;
        let (up, twice) = (agent.messages_up, agent.duplicates_received);
        log.note(format_args!("{} of {up} messages came twice to {}", twice, session.id));
        let few = if world.has_room() { up / 64 + FEW_OF_PROMPT } else { up / 2 + FEW };
        if world.is_calm() && twice > few {
            log.fault(format_args!("{agent:?}: too many messages come twice on a calm link"));
        }
        if session.limit_exceeded {
            log.fault(format_args!("session {} has exceeded the service's rate of messages", session.id));
        }
    }
    for id in cloud.open_sessions() {
        cloud.inside.close_session(&id, "").await;
    }
    cloud.each_wire(WireControl::cut);
    sleep(AFTERWARDS).await;
    let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    if left > 0 {
        log.fault(format_args!("{left} tasks are left"));
    }
}

/// Runs all clients, then has the user end the program.
async fn all_clients(world: World, doors: Doors, log: Log, is_over: Rc<Cell<bool>>) -> Vec<Option<Fate>> {
    let all = (0..world.clients.len() as u32).map(|number| {
        let (world, doors, log, is_over) = (&world, &doors, &log, &is_over);
        async move { timeout(PATIENCE, local::run(number, world, doors, log, is_over)).await.ok() }
    });
    let fates = futures_util::future::join_all(all).await;
    if world.is_text() {
        // A session on standard streams ends with them.
        for _ in 0..20 {
            if !is_over.get() {
                sleep(Duration::from_secs(3)).await;
            }
        }
        // A connection to a destination that does not answer may still come about.
        if !is_over.get() && world.is_gentle() && world.destinations[0].is_good() {
            log.fault("the session outlives its input and output");
        }
    }
    if !is_over.get() {
        log.note("the user interrupts the program");
        machine::raise(if world.is_text() { libc::SIGTERM } else { libc::SIGINT });
    }
    fates
}

/// Lets the events of the world happen.
async fn happen(world: World, cloud: Cloud, network: Arc<Network>, log: Log) {
    for (at, event) in &world.events {
        sleep(at.saturating_sub(machine::elapsed())).await;
        log.note(format_args!("{event:?}"));
        match *event {
            Event::Close => cloud.close(),
            Event::Break => cloud.each_wire(WireControl::cut),
            Event::DeadPath => cloud.each_wire(WireControl::kill),
            Event::Silence { ms } => cloud.each_wire(|wire| wire.silence(Duration::from_millis(ms))),
            Event::Outage { ms } => cloud.outage(Duration::from_millis(ms)),
            Event::Pause { ms } => {
                for is_on in [true, false] {
                    for id in cloud.open_sessions() {
                        cloud.inside.pause(&id, is_on).await;
                    }
                    sleep(Duration::from_millis(if is_on { ms } else { 0 })).await;
                }
            }
            Event::Refuse { kind, ms } => {
                cloud.inside.refuse_starts(Some(kind));
                sleep(Duration::from_millis(ms)).await;
                cloud.inside.refuse_starts(None);
            }
            Event::EndSessions => {
                for id in cloud.open_sessions() {
                    cloud.inside.close_session(&id, "").await;
                }
            }
            Event::Sleep { ms } => {
                machine::sleep(Duration::from_millis(ms));
                cloud.each_wire(WireControl::kill);
            }
            Event::NetworkChange => network.report_change(),
            Event::NoDescriptors { ms } => {
                cloud.descriptors.exhaust(true);
                sleep(Duration::from_millis(ms)).await;
                cloud.descriptors.exhaust(false);
            }
            Event::Signal(signal) => machine::raise(signal),
        }
    }
}

/// The request of argv.
fn request(world: &World) -> Value {
    match world.kind {
        Kind::Ports => {}
        Kind::Shell { .. } => return json!({"Target": DEFAULT_TARGET}),
        Kind::Ssh => {
            let parameters = json!({"portNumber": ["22"]});
            return json!({
                "Target": DEFAULT_TARGET,
                "DocumentName": "AWS-StartSSHSession",
                "Parameters": parameters,
            });
        }
        Kind::Command { is_separate } => {
            let is_separate = if is_separate { "True" } else { "False" };
            return json!({
                "Target": DEFAULT_TARGET,
                "DocumentName": "AWS-StartNonInteractiveCommand",
                "Parameters": {"command": ["program"], "separateOutputStream": [is_separate]},
            });
        }
    }
    json!({
        "Target": DEFAULT_TARGET,
        "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
        "Parameters": {
            "host": ["d0.internal"],
            "portNumber": ["1000"],
            "localPortNumber": [port_of(0).to_string()],
        },
    })
}

/// The settings as the environment of such a program has them.
fn settings(world: &World) -> Settings {
    let forwards =
        (1..world.destinations.len()).map(|index| format!("{}:d{index}.internal:1000", port_of(index)));
    let forwards: Vec<String> = forwards.collect();
    let variable = |name: &str| match name {
        "SSM_PLUGIN_RESTART" => world.restart.then(|| "1".to_owned()),
        "SSM_PLUGIN_SESSIONS" => Some(world.sessions.to_string()),
        "SSM_PLUGIN_FORWARD" => (!forwards.is_empty()).then(|| forwards.join(",")),
        "SSM_PLUGIN_SOCKS" => (!forwards.is_empty()).then(|| SOCKS_PORT.to_string()),
        "SSM_PLUGIN_BUFFER" => world.has_small_buffer.then(|| SMALL_BUFFER.to_owned()),
        "SSM_PLUGIN_STATUS" => Some("1".to_owned()),
        _ => None,
    };
    let read = |name: &str| variable(name).map(Into::into);
    LoadedSettings::from(read, std::iter::empty(), None, &Subject::default()).settings
}

/// The least that the setting takes.
const SMALL_BUFFER: &str = "1048576";
/// Virtual time of a client, from its connection on.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Virtual time of a program.
const LONGEST: Duration = Duration::from_secs(3600);
/// Virtual time for what is left to end.
const AFTERWARDS: Duration = Duration::from_secs(200);
/// Messages that come twice although nothing was lost: those that the agent did not take yet.
const FEW: u64 = 20;
/// The same where each is taken at once.
const FEW_OF_PROMPT: u64 = 3;
/// Events that are shown of a world with a fault.
const LAST_EVENTS: usize = 60;
