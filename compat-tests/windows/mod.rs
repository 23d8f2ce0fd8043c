//! The program for Windows, under wine or on Windows: consoles with real key events, pipes, the parent.
//!
//! Run by `scripts/windows`, which names the programs in the environment; ignored elsewhere, since they are built for
//! another system.

mod commands;
mod console;
mod keys;
mod pipes;

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::process::Running;
use crate::harness::{PATIENCE, World, required, wire};

/// The agent whose handshake the scripted gateways play.
const AGENT: &str = "3.3.1345.0";

/// A program on a console of its own, seen from both ends: what is typed and shown here, and what reaches the remote.
struct Session {
    driver: Driver,
    remote: Remote,
    _gateway: Gateway,
    _world: World,
}

/// A program on a console of its own, seen from the keyboard and the screen.
struct Driver {
    running: Running,
    /// Modes and code pages before the program started.
    before: String,
}

/// The remote's end of a shell.
struct Remote {
    received: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    sizes: Vec<Value>,
    /// Ends the session.
    end: Sender<()>,
}

impl Session {
    fn start(how: &str) -> Session {
        Session::start_until(how, "ready")
    }

    /// Starts, and waits for `text` on the screen.
    fn start_until(how: &str, text: &str) -> Session {
        let (bytes, received) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let ended = std::sync::Mutex::new(ended);
        let gateway = Gateway::scripted(move |socket: &mut Socket| {
            socket.handshake(AGENT, "Standard_Stream", &json!({}));
            let number = socket.data(wire::PAYLOAD_OUTPUT, "ready\r\n");
            socket.acknowledged(number);
            while ended.lock().expect("end lock").try_recv().is_err() {
                let Some(frame) = socket.input() else { return };
                let kind = frame.payload_type;
                if matches!(kind, wire::PAYLOAD_OUTPUT | wire::PAYLOAD_SIZE)
                    && bytes.send([vec![kind as u8], frame.payload].concat()).is_err()
                {
                    return;
                }
            }
            socket.close("");
        });
        let world = World::new();
        let started = Started::of(&gateway).command(&world);
        let driver = Driver::start(driver(&world, DRIVER, how, &started));
        let remote = Remote { received, bytes: Vec::new(), sizes: Vec::new(), end };
        let mut session = Session { driver, remote, _gateway: gateway, _world: world };
        session.wait_for_screen(text);
        session
    }

    fn ask(&mut self, word: &str) -> String {
        self.driver.ask(word)
    }

    fn wait_for_screen(&mut self, text: &str) -> String {
        self.driver.wait_for_screen(text)
    }

    fn tell(&mut self, words: &str) {
        self.driver.tell(words);
    }

    fn press(&mut self, down: bool, code: u16, unit: u16, state: u32) {
        self.tell(&format!("key {} {code} {unit} {state}", u8::from(down)));
    }

    fn type_units(&mut self, units: &[u16]) {
        let hex: String = units.iter().map(|unit| format!("{unit:04x}")).collect();
        self.tell(&format!("type {hex}"));
    }

    fn type_text(&mut self, text: &str) {
        self.type_units(&text.encode_utf16().collect::<Vec<_>>());
    }

    /// Fails unless exactly these bytes reach the remote, then a mark which is typed after them.
    #[track_caller]
    fn assert_sent(&mut self, expected: impl AsRef<[u8]>) {
        self.type_text(MARK);
        self.remote.wait_for(MARK.as_bytes());
        let sent = std::mem::take(&mut self.remote.bytes);
        let sent = sent.strip_suffix(MARK.as_bytes()).expect("the mark is last");
        let (sent, expected) = (String::from_utf8_lossy(sent), String::from_utf8_lossy(expected.as_ref()));
        if sent != expected {
            let at = sent.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let lengths = (sent.len(), expected.len());
            let [sent, expected] = [sent, expected].map(|text| {
                text.get(at.saturating_sub(20)..).unwrap_or_default().chars().take(80).collect::<String>()
            });
            panic!("byte {at} of {lengths:?}: {sent:?} instead of {expected:?}");
        }
    }

    /// As [`Driver::assert_ends_and_restores`].
    #[track_caller]
    fn assert_ends_and_restores(&mut self) {
        self.driver.assert_ends_and_restores();
    }
}

impl Driver {
    fn start(mut command: Command) -> Driver {
        let running = Running::spawn(&mut command);
        running.stdout.wait_for("started ");
        let before = running.stdout.wait_for("\n").trim().to_owned();
        Driver { running, before }
    }

    fn ask(&mut self, word: &str) -> String {
        self.tell(word);
        self.running.stdout.wait_for(&format!("{word} "));
        self.running.stdout.wait_for("\n").trim().to_owned()
    }

    fn wait_for_screen(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.ask("screen");
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {text:?} on the screen: {screen}");
        }
    }

    fn tell(&mut self, words: &str) {
        self.running.send(format!("{words}\n"));
    }

    fn ask_end(&mut self) -> String {
        self.tell("wait");
        self.running.stdout.wait_for("ended ");
        self.running.stdout.wait_for("\n").trim().to_owned()
    }

    /// Waits for the program's end, and fails unless its status is 0 and the console is as it was.
    #[track_caller]
    fn assert_ends_and_restores(&mut self) {
        assert_eq!(self.ask_end(), "0");
        assert_eq!(self.ask("modes"), self.before, "modes and code pages");
    }
}

impl Remote {
    /// Waits until `text` has come.
    #[track_caller]
    fn wait_for(&mut self, text: &[u8]) {
        while !self.bytes.ends_with(text) {
            self.take();
        }
    }

    #[track_caller]
    fn take(&mut self) {
        match self.received.recv_timeout(PATIENCE) {
            Ok(frame) if u32::from(frame[0]) == wire::PAYLOAD_SIZE => {
                self.sizes.push(serde_json::from_slice(&frame[1..]).expect("a size"));
            }
            Ok(frame) => self.bytes.extend_from_slice(&frame[1..]),
            Err(_) => panic!("nothing more came after {:?}", String::from_utf8_lossy(&self.bytes)),
        }
    }
}

/// The driver, with the plugin's command under it. Callers are distinguished by their programs' names: `name`.
fn driver(world: &World, name: &str, how: &str, plugin: &Command) -> Command {
    let program = world.path(name);
    std::fs::copy(required(variable("CONSOLE_DRIVER")), &program).expect("copy the driver");
    let mut command = match std::env::var_os("WINDOWS_RUNNER") {
        Some(runner) => world.command(runner),
        None => world.command(&program),
    };
    if std::env::var_os("WINDOWS_RUNNER").is_some() {
        command.arg(&program);
    }
    command.args([how, &variable("PLUGIN_FOR_WINDOWS")]).args(plugin.get_args());
    command.envs(plugin.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these tests are run by scripts/windows"))
}

/// A path as Windows has it; wine shows the whole file system as `Z:`.
fn on_windows(path: &Path) -> String {
    let path = path.display().to_string();
    if cfg!(windows) { path } else { format!("Z:{}", path.replace('/', "\\")) }
}

/// A caller that is none.
const DRIVER: &str = "driver.exe";
/// Text that no test types.
const MARK: &str = "<mark>";
