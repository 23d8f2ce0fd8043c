//! Two hundred random kills: `aws`, the terminal or the network is killed at a moment that a seed picks, in every
//! kind of session, from before the plugin runs until long after the session is up. Nothing may be left behind.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use ssm_sim::{Config, CustomDocument};

use super::processes;
use super::signals::on_a_script;
use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::FreePort;
use crate::harness::process::Running;
use crate::harness::sim::start;
use crate::harness::{Aws, TARGET};

#[test]
fn sixty_dead_callers_on_pipes() {
    many(60, 1, caller_on_pipes);
}

#[test]
fn fifty_dead_callers_on_terminals() {
    many(50, 2, caller_on_terminal);
}

#[test]
fn thirty_dead_terminals() {
    many(30, 3, terminal);
}

#[test]
fn forty_dead_networks() {
    many(40, 4, network);
}

#[test]
fn twenty_dead_aws_clis() {
    many(20, 5, aws);
}

/// Runs `attempt` that many times, some concurrently. All failures are reported together.
#[track_caller]
fn many(count: usize, seed: u64, attempt: fn(&mut fastrand::Rng) -> Result<(), String>) {
    let (next, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (next, failures) = (Arc::clone(&next), Arc::clone(&failures));
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    let mut rng = fastrand::Rng::with_seed(seed * 1000 + number as u64);
                    if let Err(what) = attempt(&mut rng) {
                        failures.lock().expect("failures").push(format!("{number}: {what}"));
                    }
                }
            })
        })
        .collect();
    let panics: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().err()).collect();
    let mut failures = failures.lock().expect("failures");
    failures.extend(panics.iter().map(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        format!("a panic: {}", words.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default())
    }));
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

/// One attempt's surroundings, and what must be gone afterwards.
struct Scene {
    world: World,
    sim: Sim,
    far: Server,
    kind: usize,
    port: FreePort,
    socket: PathBuf,
}

impl Scene {
    fn new(rng: &mut fastrand::Rng) -> Scene {
        let (world, far) = (World::new(), greeter());
        let socket = world.path("forwarded.sock");
        let properties = json!({"type": "LocalPortForwarding", "portNumber": far.port().to_string(),
            "localConnectionType": "unix", "localUnixSocket": socket.display().to_string()});
        let serde_json::Value::Object(properties) = properties else { unreachable!("an object") };
        let documents = [("Socket".to_owned(), CustomDocument::Port { properties })].into();
        let sim = start(Config { documents, ..Config::default() });
        Scene { world, sim, far, kind: rng.usize(..KINDS), port: FreePort::new(), socket }
    }

    fn start(&self) -> Started {
        let endpoint = self.sim.endpoint();
        match self.kind {
            0 => Kind::Shell.start(&self.sim, &self.far),
            1 => Kind::Command.start(&self.sim, &self.far),
            STDIO => Kind::Stdio.start(&self.sim, &self.far),
            3 => Started::port(&endpoint, self.far.port(), self.port.number()),
            _ => Started::at(&endpoint, Some("Socket"), json!({})),
        }
    }

    /// Nothing is left.
    fn check(&self, terminal: Option<&Terminal>) -> Result<(), String> {
        let left = processes::left_after(GONE, || {
            let mut left = processes::of(&self.world);
            // The leader of the terminal's session stays.
            left.retain(|process| terminal.is_none_or(|terminal| process.pid != terminal.pid()));
            left
        });
        let mut wrong = Vec::new();
        for process in &left {
            let _ = kill_process(to_pid(process.pid), Signal::KILL);
        }
        // Without a process there is no listener either; another test may have its port by now.
        if !left.is_empty() {
            wrong.push(format!("processes {left:?}"));
        }
        if self.socket.exists() {
            wrong.push("a socket file".to_owned());
        }
        if terminal.is_some_and(Terminal::is_changed) {
            wrong.push("a raw terminal".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("kind {}: {}", self.kind, wrong.join(", "))) }
    }
}

/// A moment within the life of a session.
fn wait(rng: &mut fastrand::Rng, most: u64) {
    // Half of them early, where things are being set up.
    let most = if rng.bool() { most } else { most / 8 };
    std::thread::sleep(Duration::from_micros(rng.u64(..most * 1000)));
}

fn caller_on_pipes(rng: &mut fastrand::Rng) -> Result<(), String> {
    let scene = Scene::new(rng);
    let mut parent = Running::spawn(&mut under_the_cli(&scene.world, &scene.start().command(&scene.world)));
    let stdin = parent.take_stdin();
    wait(rng, 600);
    parent.signal(Signal::KILL);
    if scene.kind == STDIO {
        // An SSH session ends with its streams.
        drop(stdin);
    }
    scene.check(None)
}

fn caller_on_terminal(rng: &mut fastrand::Rng) -> Result<(), String> {
    let mut scene = Scene::new(rng);
    if scene.kind == STDIO {
        // Its streams would live on.
        scene.kind = 0;
    }
    let inner = under_the_cli(&scene.world, &scene.start().command(&scene.world));
    let terminal = Terminal::spawn(&under(&scene.world, &inner, "exec sleep 1000"));
    wait(rng, 600);
    // Between the leader and the plugin.
    let caller = processes::of(&scene.world).into_iter().find(|process| process.parent == terminal.pid());
    let Some(caller) = caller else { return Ok(()) };
    let _ = kill_process(to_pid(caller.pid), Signal::KILL);
    scene.check(Some(&terminal))
}

fn terminal(rng: &mut fastrand::Rng) -> Result<(), String> {
    let scene = Scene::new(rng);
    let mut script = Running::spawn(&mut on_a_script(&scene.world, &scene.start().command(&scene.world)));
    let _stdin = script.take_stdin();
    wait(rng, 600);
    script.signal(Signal::KILL);
    scene.check(None)
}

fn network(rng: &mut fastrand::Rng) -> Result<(), String> {
    let mut scene = Scene::new(rng);
    scene.world.set("SSM_PLUGIN_RECONNECT_TIMEOUT", "1");
    scene.world.set("SSM_PLUGIN_OPEN_TIMEOUT", "1");
    let mut terminal = Terminal::spawn(&scene.start().command(&scene.world));
    wait(rng, 400);
    scene.sim.outage(Duration::from_secs(3600));
    let status = terminal.finish_within(PATIENCE);
    if !status.success() {
        return Err(format!("{status:?}: {}", terminal.screen.text()));
    }
    scene.check(Some(&terminal))
}

fn aws(rng: &mut fastrand::Rng) -> Result<(), String> {
    let scene = Scene::new(rng);
    let (port, far) = (scene.port.number().to_string(), scene.far.port().to_string());
    let parameters = json!({"portNumber": [far], "localPortNumber": [port]}).to_string();
    let mut words = vec!["ssm", "start-session", "--target", TARGET];
    if scene.kind > 1 {
        words.extend(["--document-name", "AWS-StartPortForwardingSession", "--parameters", &parameters]);
    }
    let aws = if rng.bool() { Aws::V1 } else { Aws::V2 };
    let mut command = scene.world.aws(aws, &scene.sim.endpoint(), &words);
    // As a shell has it, for a death while the plugin starts.
    command.env("_", aws.program());
    let mut running = Running::spawn(&mut command);
    let _stdin = running.take_stdin();
    wait(rng, 4000);
    running.signal(Signal::KILL);
    scene.check(None)
}

/// Number of kinds that [`Scene::start`] knows.
const KINDS: usize = 5;
const STDIO: usize = 2;

/// Attempts at once: most of their time is waiting.
const AT_ONCE: usize = 6;

/// When all must be gone.
const GONE: Duration = Duration::from_secs(8);
