//! Signals, dead parents, closed terminals and closed pipes, in every kind of session.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use ssm_sim::Config;
use ssm_sim::agent::{AgentOptions, Broken};

use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::{FreePort, connect, echo_through, eventually, opened_port};
use crate::harness::process::Running;
use crate::harness::sim::start;

/// SIGTERM and SIGHUP, on pipes and on a terminal: status 0, the right words, the terminal as before, the session
/// over at the service.
macro_rules! ends {
    ($($name:ident: $kind:ident $signal:ident;)*) => {$(
        #[test]
        fn $name() {
            end_on_pipes(Kind::$kind, Signal::$signal);
            if Kind::$kind != Kind::Stdio {
                end_on_terminal(Kind::$kind, Signal::$signal);
            }
        }
    )*};
}

ends! {
    sigterm_ends_a_shell: Shell TERM;
    sigterm_ends_a_command: Command TERM;
    sigterm_ends_a_batch_command: Batch TERM;
    sigterm_ends_a_stdio_session: Stdio TERM;
    sigterm_ends_a_port_session: Mux TERM;
    sigterm_ends_a_basic_port_session: Basic TERM;
    sighup_ends_a_shell: Shell HUP;
    sighup_ends_a_command: Command HUP;
    sighup_ends_a_batch_command: Batch HUP;
    sighup_ends_a_stdio_session: Stdio HUP;
    sighup_ends_a_port_session: Mux HUP;
    sighup_ends_a_basic_port_session: Basic HUP;
    sigint_ends_a_stdio_session: Stdio INT;
    sigint_ends_a_port_session: Mux INT;
    sigint_ends_a_basic_port_session: Basic INT;
}

#[track_caller]
fn end_on_pipes(kind: Kind, signal: Signal) {
    let (world, sim, far) = (World::new(), kind.sim(), greeter());
    let started = kind.start(&sim, &far);
    let mut plugin = Running::spawn(&mut started.command(&world));
    let _stdin = plugin.take_stdin();
    kind.wait_until_up(&plugin.stdout);
    plugin.signal(signal);
    let finished = plugin.finish_within(PROMPT);
    finished.assert_ok();
    assert_eq!(finished.errors(), "", "{kind:?}");
    assert_words(kind, &finished.text(), started.id());
    assert_ended(&sim, started.id());
}

#[track_caller]
fn end_on_terminal(kind: Kind, signal: Signal) {
    let (world, sim, far) = (World::new(), kind.sim(), greeter());
    let started = kind.start(&sim, &far);
    let mut terminal = Terminal::spawn(&started.command(&world));
    kind.wait_until_up(&terminal.screen);
    assert_eq!(terminal.is_changed(), kind.has_terminal(), "only remote terminals need a raw one here");
    terminal.signal(signal);
    let status = terminal.finish_within(PROMPT);
    assert!(status.success(), "{status:?}");
    terminal.assert_restored();
    assert_ended(&sim, started.id());
}

/// The prompt of the local shell gets a line to itself.
#[test]
fn a_shell_that_is_cut_off_leaves_the_cursor_on_a_new_line() {
    for signal in [Some(Signal::TERM), Some(Signal::HUP), None] {
        let (world, sim) = (World::new(), sim());
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let mut terminal = Terminal::spawn(&started.command(&world));
        terminal.wait_for(prompt());
        match signal {
            Some(signal) => terminal.signal(signal),
            None => terminal.send("~."),
        }
        assert!(terminal.finish_within(PROMPT).success());
        terminal.wait_for("\x1b[0m\r\n");
        let screen = terminal.screen.text();
        assert!(screen.ends_with("\x1b[0m\r\n"), "{signal:?}: {screen:?}");
    }
}

/// The words of an end by signal.
#[track_caller]
fn assert_words(kind: Kind, text: &str, id: &str) {
    let exiting = format!("\n\nExiting session with sessionId: {id}.\n\n");
    match kind {
        // No caller parses more than the remote's own bytes; a line about the end does no harm.
        Kind::Shell | Kind::Command | Kind::Batch => {
            let rest = text.strip_suffix(&exiting).unwrap_or(text);
            let last = if kind == Kind::Shell { prompt() } else { UP };
            assert!(rest.trim_end_matches(['\r', '\n']).ends_with(last.trim_end_matches('\n')), "{text:?}");
        }
        Kind::Stdio => assert_eq!(text, format!("\nStarting session with SessionId: {id}\n{GREETING}")),
        Kind::Mux | Kind::Basic => {
            let words = format!("Terminate signal received, exiting.\n{exiting}");
            assert!(text.ends_with(&words), "{text:?}");
        }
    }
}

/// The real agent never acknowledges the flag when the destination has closed first. With nothing before it, that is no
/// reason to ask the service, too.
#[test]
fn a_flag_that_blocks_the_agent_does_not_hold_up_the_end() {
    let agent = AgentOptions { broken: Some(Broken::StuckTerminate), ..AgentOptions::default() };
    let (world, sim, far) = (World::new(), start(Config { agent, ..Config::default() }), greeter());
    let started = Kind::Stdio.start(&sim, &far);
    let mut plugin = Running::spawn(&mut started.command(&world));
    let _stdin = plugin.take_stdin();
    Kind::Stdio.wait_until_up(&plugin.stdout);
    plugin.signal(Signal::TERM);
    plugin.finish().assert_ok();
    assert_eq!(sim.sessions()[0].terminates, 0);
}

/// The official plugin's way: these three are the remote's business.
#[test]
fn interrupt_quit_and_suspend_go_to_the_remote_command() {
    for (signal, name) in [(Signal::INT, "INT"), (Signal::QUIT, "QUIT")] {
        let (world, sim) = (World::new(), sim());
        let command =
            format!("trap 'echo got-$((1+1)); exit' {name}; echo {UP}; while :; do sleep 0.1; done");
        let started = interactive(&sim, &command);
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        plugin.stdout.wait_for(UP);
        plugin.signal(signal);
        plugin.stdout.wait_for("got-2");
        plugin.finish().assert_ok();
        assert_ended(&sim, started.id());
    }
}

#[test]
fn sigint_interrupts_a_batch_command() {
    let (world, sim, far) = (World::new(), sim(), greeter());
    let started = Kind::Batch.start(&sim, &far);
    let mut plugin = Running::spawn(&mut started.command(&world));
    let _stdin = plugin.take_stdin();
    plugin.stdout.wait_for(UP);
    plugin.signal(Signal::INT);
    let finished = plugin.finish_within(PROMPT);
    finished.assert_ok();
    assert!(finished.text().contains("EXIT_CODE: -1"), "Go's code after a signal: {:?}", finished.text());
    assert_ended(&sim, started.id());
}

#[test]
fn sigtstp_stops_the_remote_job_and_not_us() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let mut terminal = Terminal::spawn(&started.command(&world));
    terminal.wait_for(prompt());
    terminal.send("sh -c 'echo two-$((1+1)); exec sleep 1000'\r");
    terminal.wait_for("two-2");
    terminal.signal(Signal::TSTP);
    terminal.wait_for("Stopped");
    terminal.send("echo back-$((1+2))\r");
    terminal.wait_for("back-3");
    terminal.signal(Signal::TERM);
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
}

/// As after `kill -STOP` and `fg`: the shell has changed the terminal's modes in between.
#[test]
fn sigcont_brings_raw_mode_and_size_back() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let mut terminal = Terminal::spawn(&started.command(&world));
    terminal.wait_for(prompt());
    assert!(terminal.is_changed(), "no raw mode");
    terminal.signal(Signal::STOP);
    let stty = |words: &[&str]| {
        let status = Command::new("stty").args(["-F", &terminal.name()]).args(words).status();
        assert!(status.expect("stty").success());
    };
    stty(&["sane"]);
    stty(&["cols", "101", "rows", "33"]);
    let sane = terminal.modes();
    terminal.signal(Signal::CONT);
    eventually("raw mode is back", || terminal.modes() != sane);
    terminal.send("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo size-$((1+1))\r");
    terminal.wait_for("size-2");
    terminal.send("exit\r");
    assert!(terminal.finish_within(PATIENCE).success());
}

#[test]
fn a_signal_while_opening_ends_at_once() {
    let gateway = crate::harness::gateway::Gateway::raw(super::deadlines::never_answer);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut plugin = Running::spawn(&mut Started::of(&gateway).command(&World::new()));
        let _stdin = plugin.take_stdin();
        plugin.stdout.wait_for("Starting session");
        plugin.signal(signal);
        plugin.finish_within(PROMPT).assert_ok();
    }
}

#[test]
fn a_signal_while_the_network_is_away_ends_at_once() {
    for kind in [Kind::Shell, Kind::Mux] {
        let (world, sim, far) = (World::new(), sim(), greeter());
        let mut command = kind.start(&sim, &far).command(&world);
        command.env("SSM_PLUGIN_STATUS", "always");
        let mut terminal = Terminal::spawn(&command);
        kind.wait_until_up(&terminal.screen);
        sim.outage(Duration::from_secs(3600));
        terminal.wait_for("reconnecting");
        terminal.signal(Signal::TERM);
        assert!(terminal.finish_within(PROMPT).success());
        terminal.assert_restored();
    }
}

/// An agent before 2.3.722 knows no TerminateSession flag: the API has to do.
#[test]
fn an_agent_without_the_flag_is_ended_through_the_api() {
    let (world, sim, far) = (World::new(), sim_with_agent(Generation::V2_3), greeter());
    let started = Kind::Basic.start(&sim, &far);
    let mut plugin = Running::spawn(&mut started.command(&world));
    let _stdin = plugin.take_stdin();
    Kind::Basic.wait_until_up(&plugin.stdout);
    plugin.signal(Signal::TERM);
    plugin.finish_within(PROMPT).assert_ok();
    assert_ended(&sim, started.id());
}

/// An agent that takes nothing any more must not hold the end up for more than 2 s.
#[test]
fn sigterm_ends_even_with_a_stalled_connection() {
    for kind in [Kind::Shell, Kind::Mux] {
        let (world, sim, far) = (World::new(), kind.sim(), greeter());
        let started = kind.start(&sim, &far);
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        kind.wait_until_up(&plugin.stdout);
        sim.stall(started.id(), ssm_sim::Way::Both, Duration::from_secs(3600));
        plugin.signal(Signal::TERM);
        plugin.finish_within(PROMPT).assert_ok();
    }
}

/// Killing `aws` leaves nothing behind. (SSH sessions live on: see `callers`.)
macro_rules! dies_with_parent {
    ($($name:ident: $kind:ident;)*) => {$(
        #[test]
        fn $name() {
            death_of_the_parent(Kind::$kind);
        }
    )*};
}

dies_with_parent! {
    the_parents_death_ends_a_shell: Shell;
    the_parents_death_ends_a_command: Command;
    the_parents_death_ends_a_batch_command: Batch;
    the_parents_death_ends_a_port_session: Mux;
    the_parents_death_ends_a_basic_port_session: Basic;
}

#[track_caller]
fn death_of_the_parent(kind: Kind) {
    let (world, sim, far) = (World::new(), kind.sim(), greeter());
    let started = kind.start(&sim, &far);
    let mut parent = Running::spawn(&mut under_the_cli(&world, &started.command(&world)));
    let _stdin = parent.take_stdin();
    kind.wait_until_up(&parent.stdout);
    parent.signal(Signal::KILL);
    let left = processes::left_after(PROMPT, || processes::of(&world));
    assert!(left.is_empty(), "{left:?}");
    assert_ended(&sim, started.id());
}

#[test]
fn the_parents_death_restores_the_terminal() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    // The terminal's session has its own leader, which lives on.
    let inner = under_the_cli(&world, &started.command(&world));
    let terminal = Terminal::spawn(&under(&world, &inner, "exec sleep 1000"));
    terminal.wait_for(prompt());
    assert!(terminal.is_changed());
    let plugin = processes::plugins(&world).pop().expect("the plugin");
    kill_process(to_pid(plugin.parent), Signal::KILL).expect("kill the parent");
    let left = processes::left_after(PROMPT, || processes::plugins(&world));
    assert!(left.is_empty(), "{left:?}");
    terminal.assert_restored();
    assert_ended(&sim, started.id());
}

#[test]
fn the_parents_death_is_survived_on_request() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_KEEP_ALIVE_WITHOUT_PARENT", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let parent = Running::spawn_without_stdin(&mut under_the_cli(&world, &started.command(&world)));
    let port = opened_port(&parent.stdout);
    let plugin = processes::plugins(&world).pop().expect("the plugin");
    parent.signal(Signal::KILL);
    eventually("it has another parent", || {
        processes::read(plugin.pid).is_some_and(|now| now.parent != plugin.parent)
    });
    // Without the setting it would be gone after a second and a half.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        assert_eq!(echo_through(port, b"still here"), b"still here");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(to_pid(plugin.pid), Signal::TERM).expect("signal the plugin");
    let left = processes::left_after(PROMPT, || processes::plugins(&world));
    assert!(left.is_empty(), "{left:?}");
    assert_ended(&sim, started.id());
}

/// `script` is the terminal; it dies, and the kernel hangs up.
#[test]
fn a_closed_terminal_ends_the_session() {
    for kind in [Kind::Shell, Kind::Mux] {
        let (world, sim, far) = (World::new(), kind.sim(), greeter());
        let started = kind.start(&sim, &far);
        let script = Running::spawn(&mut on_a_script(&world, &started.command(&world)));
        kind.wait_until_up(&script.stdout);
        script.signal(Signal::KILL);
        let left = processes::left_after(PROMPT, || processes::of(&world));
        assert!(left.is_empty(), "{kind:?}: {left:?}");
        assert_ended(&sim, started.id());
    }
}

/// `command` on a terminal that is a process of its own.
pub fn on_a_script(world: &World, command: &Command) -> Command {
    let mut script = world.command("/usr/bin/script");
    script.args([
        "--quiet",
        "--return",
        "--command",
        "\"$PLUGIN\" AWS_SSM_START_SESSION_RESPONSE us-east-1 StartSession '' \"$REQUEST\" \"$ENDPOINT\"",
        "/dev/null",
    ]);
    let words: Vec<_> = command.get_args().collect();
    script.env("PLUGIN", command.get_program()).env("REQUEST", words[4]).env("ENDPOINT", words[5]);
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script
}

/// A caller that was killed, behind a program that waits for us: nothing is typed or read any more, and the remote is silent.
#[test]
fn a_silent_shell_ends_when_both_of_its_streams_have_gone() {
    let (world, sim) = (World::new(), sim());
    let started = Kind::Command.start(&sim, &greeter());
    let mut command = started.command(&world);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start");
    let mut stdout = child.stdout.take().expect("piped stdout");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(UP) {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stdout, &mut byte).expect("output");
        seen.extend(byte);
    }
    drop(child.stdin.take());
    drop(stdout);
    assert_ends_quietly(child, &started);
    assert_ended(&sim, started.id());
}

/// Waits for the end of a plugin whose stdout is closed.
#[track_caller]
fn assert_ends_quietly(mut child: Child, started: &Started) {
    let begin = Instant::now();
    while child.try_wait().expect("try_wait").is_none() {
        if begin.elapsed() > PROMPT {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{started:?} goes on without a reader");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("its stderr");
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
}

/// `aws … | head -1`.
#[test]
fn a_reader_that_has_gone_ends_quietly() {
    let (world, sim) = (World::new(), sim());
    let endless = [
        interactive(&sim, &format!("echo {UP}; while :; do echo more; sleep 0.05; done")),
        batch(&sim, &format!("sh -c 'echo {UP}; while :; do echo more; sleep 0.05; done'")),
        Started::at(
            &sim.endpoint(),
            Some("AWS-StartSSHSession"),
            json!({"portNumber": [chatter().to_string()]}),
        ),
    ];
    for started in endless {
        let mut command = started.command(&world);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let mut stdout = child.stdout.take().expect("piped stdout");
        // The first line is read, and nothing after it.
        std::io::Read::read_exact(&mut stdout, &mut [0; 20]).expect("the first bytes");
        drop(stdout);
        assert_ends_quietly(child, &started);
        assert_ended(&sim, started.id());
    }
}

/// A server that never stops talking; it ends with the test process.
fn chatter() -> u16 {
    let server = Server::start(|mut stream| {
        while stream.write_all(b"more\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let port = server.port();
    std::mem::forget(server);
    port
}

/// A tunnel whose notices are not read still works, and costs nothing.
#[test]
fn a_tunnel_continues_without_a_reader() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let free = FreePort::new();
    let port = free.number();
    let started = Started::port(&sim.endpoint(), echo.port(), port);
    let mut command = started.command(&world);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("start");
    drop(child.stdout.take());
    eventually("the port is open", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(echo_through(port, b"unread"), b"unread");
    let idle = connect(port);
    let before = processes::read(child.id()).expect("the plugin").cpu();
    std::thread::sleep(Duration::from_secs(1));
    let used = processes::read(child.id()).expect("the plugin").cpu() - before;
    drop(idle);
    kill_process(to_pid(child.id()), Signal::TERM).expect("signal");
    let status = child.wait().expect("its end");
    assert!(used < Duration::from_millis(300), "{used:?} of CPU time in an idle second");
    assert_eq!(status.code(), Some(0));
    assert_ended(&sim, started.id());
}
