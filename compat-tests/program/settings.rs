//! Settings from outside: the file, warnings, and no warning for a caller that only asks for the version.

use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use ssm_sim::{Sim, Way};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
#[cfg(target_os = "linux")]
use crate::harness::gateway::{SESSION, TOKEN};
use crate::harness::greeting::greeted;
#[cfg(target_os = "linux")]
use crate::harness::net::eventually;
use crate::harness::net::{Server, connect, echo_through, opened_port, random_bytes};
use crate::harness::process::{Finished, Running, run};
use crate::harness::pty::Pty;
use crate::harness::sim::sim;
use crate::harness::{World, named_pipe, wire};

/// A world with a settings file.
fn world(file: &str) -> World {
    let world = World::new();
    let dir = world.home().join(".config/session-manager-plugin");
    std::fs::create_dir_all(&dir).expect("config folder");
    std::fs::write(dir.join("config.toml"), file).expect("config file");
    world
}

#[track_caller]
fn greet(world: &World) -> Finished {
    greeted(world, 1)
}

#[test]
fn the_file_counts_and_the_environment_wins() {
    let mut world = world("quiet = true\n");
    let finished = greet(&world);
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("hello\r\n", ""));
    world.set("SSM_PLUGIN_QUIET", "0");
    let text = greet(&world).text();
    assert!(text.starts_with("\nStarting session with SessionId: "), "{text}");
}

/// One for each condition that a shell has; a section whose conditions do not match has no effect.
#[test]
fn sections_of_the_file_are_for_some_sessions() {
    let quiet = |conditions: &str| {
        let finished = greet(&world(&format!("[[match]]\n{conditions}\nquiet = true\n")));
        assert_eq!(finished.errors(), "", "{conditions}");
        !finished.text().contains("Starting session")
    };
    for conditions in [
        "target = 'i-0123*'",
        "region = ['eu-*', 'us-east-1']",
        "document = 'SSM-SessionManagerRunShell'",
        "caller = '*compat*'",
        "",
    ] {
        assert!(quiet(conditions), "{conditions}");
    }
    for conditions in ["target = 'i-1*'", "profile = '*'", "host = '*'", "caller = 'aws'"] {
        assert!(!quiet(conditions), "{conditions}");
    }
}

/// Profile, host and port of a forwarded port, with a list.
#[test]
fn a_section_for_one_database_of_one_profile() {
    let (sim, echo) = (sim(), Server::echo());
    sim.set_host("db.internal", "127.0.0.1");
    sim.set_host("cache.internal", "127.0.0.1");
    let port = echo.port();
    let world = world(&format!(
        "[[match]]\nprofile = 'prod-*'\nhost = 'db.internal'\nport = {port}\nforward = ['0:cache.internal:{port}']\n"
    ));
    let parameters =
        json!({"host": ["db.internal"], "portNumber": [port.to_string()], "localPortNumber": ["0"]});
    let document = "AWS-StartPortForwardingSessionToRemoteHost";
    for (profile, is_matched) in [("prod-eu", true), ("dev", false)] {
        let started = Started::at(&sim.endpoint(), Some(document), parameters.clone());
        let mut command = started.command(&world);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let (program, variable) = (command.get_program().to_owned(), started.response.to_string());
        command = world.command(program);
        command.env("AWS_SSM_START_SESSION_RESPONSE", variable);
        command.args(
            arguments
                .iter()
                .enumerate()
                .map(|(at, word)| if at == 3 { profile.into() } else { word.clone() }),
        );
        let plugin = Running::spawn_without_stdin(&mut command);
        let local = opened_port(&plugin.stdout);
        if is_matched {
            plugin.stderr.wait_for(&format!("forwards to cache.internal:{port}\n"));
        }
        assert_eq!(echo_through(local, b"through"), b"through");
        plugin.signal(Signal::INT);
        let errors = plugin.finish().errors();
        assert_eq!(errors.contains("cache.internal"), is_matched, "{profile}: {errors}");
    }
}

/// The forms that people write, in both places.
#[test]
fn units_words_and_full_names_are_taken() {
    let mut world = world("SSM_PLUGIN_BUFFER = '64M'\nRECONNECT_TIMEOUT = '5m'\nquiet = 'on'\n");
    world.set("SSM_PLUGIN_WINDOW", "512K");
    world.set("SSM_PLUGIN_PING_INTERVAL", "20s");
    world.set("SSM_PLUGIN_RESTART", "no");
    let finished = greet(&world);
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("hello\r\n", ""));
}

/// A shell does not use it; `doctor` checks it.
#[test]
fn a_bad_forward_is_no_matter_of_a_shell() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_FORWARD", "nonsense");
    let finished = greet(&world);
    assert!(!finished.errors().contains("nonsense"), "{}", finished.errors());
    let report = run(world.plugin().args(["doctor", "--url", "ws://127.0.0.1:1/"])).text();
    assert!(report.contains("SSM_PLUGIN_FORWARD: \"nonsense\" is not [BIND:]PORT:HOST:HOSTPORT"), "{report}");
}

#[test]
fn a_log_level_that_does_not_exist_is_reported() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_LOG", "verbose");
    let errors = greet(&world).errors();
    let words = "SSM_PLUGIN_LOG=\"verbose\": the value must be error, warn, info, debug, trace, off or a filter such as \
                 session_manager_plugin::link=debug; using the default, off\n";
    assert_eq!(errors, format!("session-manager-plugin: {words}"));
}

/// Callers read stdout alone.
#[test]
fn a_mistyped_command_names_the_commands_at_a_terminal_only() {
    let world = World::new();
    let mut command = world.plugin();
    command.arg("docter");
    assert_eq!(run(&mut command).errors(), "");
    let mut pty = Pty::spawn(&command);
    pty.wait_for("the commands are ssh, ");
    pty.wait_for("Unknown operation docter");
    assert!(pty.finish().success());
}

/// Each setting that relaxes a safeguard is named once, and a shell does not name those of ports.
#[test]
fn relaxed_safeguards_are_named_at_a_terminal_only() {
    const RATE: &str = "session-manager-plugin: SSM_PLUGIN_MESSAGE_RATE=0: the service ends sessions";
    const HOST: &str = "session-manager-plugin: SSM_PLUGIN_LOCAL_HOST=0.0.0.0: other machines can connect";
    let sim = sim();
    let mut world = World::new();
    world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
    world.set("SSM_PLUGIN_LOCAL_HOST", "0.0.0.0");
    assert_eq!(greet(&world).errors(), "", "nothing without a terminal");
    let screen = |started: &Started, last: &str| {
        let mut pty = Pty::spawn(&started.command(&world));
        pty.wait_for(last);
        // Ends the port; the command has ended already.
        pty.send("\x03");
        pty.finish();
        String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned()
    };
    let port = Started::port(&sim.endpoint(), 1, 0);
    let screen_of_port = screen(&port, "Waiting for connections...");
    assert_eq!((screen_of_port.matches(RATE).count(), screen_of_port.matches(HOST).count()), (1, 1));
    let parameters = json!({"command": ["echo done"]});
    let shell = Started::at(&sim.endpoint(), Some("AWS-StartNonInteractiveCommand"), parameters);
    let screen_of_shell = screen(&shell, "done");
    assert_eq!((screen_of_shell.matches(RATE).count(), screen_of_shell.matches(HOST).count()), (1, 0));
}

#[test]
fn settings_of_forwarded_ports_have_no_effect_on_a_shell() {
    const LINE: &str =
        "ignored in a session without port forwarding: SSM_PLUGIN_RESTART, SSM_PLUGIN_SESSIONS\n";
    let mut world = World::new();
    world.set("SSM_PLUGIN_RESTART", "1");
    world.set("SSM_PLUGIN_SESSIONS", "4");
    assert_eq!(greet(&world).errors(), "", "nothing without a terminal");
    world.set("SSM_PLUGIN_STATUS", "always");
    let errors = greet(&world).errors();
    assert_eq!(errors.matches(LINE).count(), 1, "{errors}");
}

/// Opening it would block.
#[test]
fn a_file_that_is_a_pipe_is_not_opened() {
    let world = world("");
    let path = world.home().join(".config/session-manager-plugin/config.toml");
    std::fs::remove_file(&path).expect("remove");
    named_pipe(&path);
    let finished = greet(&world);
    finished.assert_ok();
    let line = format!(
        "session-manager-plugin: settings file {} cannot be read: it is not a regular file\n",
        path.display()
    );
    assert!(finished.text().contains("hello\r\n"), "{}", finished.text());
    assert_eq!(finished.errors(), line);
}

#[test]
fn quiet_leaves_only_the_session_s_bytes() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_QUIET", "1");
    let finished = greet(&world);
    assert_eq!((finished.text().as_str(), finished.errors().as_str()), ("hello\r\n", ""));
}

/// A forwarded port with one setting.
#[track_caller]
fn forward(sim: &Sim, port: u16, setting: Option<(&str, &str)>) -> (Running, u16, String) {
    let mut world = World::new();
    if let Some((name, value)) = setting {
        world.set(name, value);
    }
    let started = Started::port(&sim.endpoint(), port, 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let port = opened_port(&plugin.stdout);
    (plugin, port, started.id().to_owned())
}

#[test]
fn rate_and_size_of_messages() {
    let echo = Server::echo();
    for (setting, largest, most) in [
        (None, 1024, 900),
        (Some(("SSM_PLUGIN_MAX_PAYLOAD", "300")), 300, 900),
        (Some(("SSM_PLUGIN_MAX_PAYLOAD", "5000")), 5000, 900),
        (Some(("SSM_PLUGIN_MESSAGE_RATE", "100")), 1024, 100),
    ] {
        let sim = sim();
        let (_plugin, port, id) = forward(&sim, echo.port(), setting);
        let bytes = random_bytes(1, 400_000);
        assert!(echo_through(port, &bytes) == bytes, "the echo differs");
        let up = sim.session(&id).expect("the session").up;
        assert!(up.largest <= largest && up.largest > largest - 100, "{setting:?}: {up:?}");
        // A burst, the rate, and what arrives in bunches.
        assert!(up.peak_1s <= 128 + most + 100, "{setting:?}: {up:?}");
    }
}

#[test]
fn window_bounds_what_is_unacknowledged() {
    const WINDOW: usize = 32_768;
    let sink = Server::start(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let unacknowledged = |setting| {
        let sim = sim();
        let (plugin, port, id) = forward(&sim, sink.port(), setting);
        let mut local = connect(port);
        local.write_all(b"x").expect("write");
        plugin.stdout.wait_for("Connection accepted");
        sim.stall(&id, Way::Down, Duration::from_secs(3600));
        let typist = std::thread::spawn(move || {
            let _ = local.write_all(&random_bytes(2, 1_000_000));
        });
        let mut most = 0;
        let mut same = 0;
        // Until nothing more goes.
        while same < 5 {
            plugin.signal(Signal::USR1);
            let line = plugin.stderr.wait_for(" bytes unacknowledged");
            let number = line.rsplit(' ').nth(2).and_then(|word| word.parse::<usize>().ok()).expect(&line);
            same = if number > most { 0 } else { same + 1 };
            most = most.max(number);
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(plugin);
        typist.join().expect("the typist");
        most
    };
    let bounded = unacknowledged(Some(("SSM_PLUGIN_WINDOW", "32768")));
    assert!((WINDOW / 2..=WINDOW + 1024).contains(&bounded), "{bounded} bytes with a window of {WINDOW}");
    let default = unacknowledged(None);
    assert!(default > 2 * WINDOW, "{default} bytes by default");
}

#[test]
fn each_mistake_is_reported_once_on_stderr() {
    let mut world = world("sessions = 99\nqiet = true\n");
    world.set("SSM_PLUGIN_MESAGE_RATE", "100");
    world.set("SSM_PLUGIN_WINDOW", "much");
    let finished = greet(&world);
    assert!(finished.text().contains("hello\r\n"));
    let errors = finished.errors();
    assert_eq!(errors.lines().count(), 4, "{errors}");
    for words in [
        "unknown setting SSM_PLUGIN_MESAGE_RATE; did you mean SSM_PLUGIN_MESSAGE_RATE?",
        "unknown setting qiet; did you mean quiet?",
        "sessions = \"99\" in the settings file: the value must be a number from 1 to 8; using the default, 1",
        "SSM_PLUGIN_WINDOW=\"much\": the value must be a number of bytes from ",
    ] {
        assert!(errors.contains(words), "{words:?} is not in {errors}");
    }
}

#[test]
fn a_caller_that_asks_for_the_version_gets_nothing_else() {
    let mut world = world("not TOML at all");
    world.set("SSM_PLUGIN_NONSENSE", "1");
    for word in ["--version", "--help", "--man"] {
        let finished = run(world.plugin().arg(word));
        finished.assert_ok();
        assert_eq!(finished.errors(), "", "{word}");
    }
}

#[test]
fn the_manual_is_made_by_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/session-manager-plugin.1");
    let committed = std::fs::read_to_string(path).expect("the committed manual");
    assert_eq!(run(World::new().plugin().arg("--man")).text(), committed);
}

/// A command's streams have no terminal at their other end that would make returns of newlines.
#[test]
fn a_command_s_output_is_not_a_staircase() {
    let sim = sim();
    let parameters = json!({"command": ["printf 'one\\ntwo\\n'"]});
    let started = Started::at(&sim.endpoint(), Some("AWS-StartNonInteractiveCommand"), parameters);
    let mut pty = Pty::spawn(&started.command(&World::new()));
    pty.wait_for("one\r\ntwo\r\n");
    assert!(pty.finish().success());
}

/// Terminal modes that a killed editor would have switched off itself.
#[test]
fn a_shell_that_is_cut_off_leaves_no_modes_on() {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "\x1b[?1000h\x1b[?2004h<editor>");
        socket.acknowledged(number);
        // It ends when the client is gone.
        while socket.input().is_some() {}
    });
    let mut pty = Pty::spawn(&Started::of(&gateway).command(&World::new()));
    pty.wait_for("<editor>");
    pty.send("\r~.");
    pty.finish();
    let screen = String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned();
    let (_, after) = screen.split_once("<editor>").expect("the editor");
    for mode in ["\x1b[?1000l", "\x1b[?2004l", "\x1b[?25h"] {
        assert!(after.contains(mode), "{mode:?} is not in {after:?}");
    }
}

#[test]
fn a_shell_that_ends_by_itself_is_left_alone() {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        socket.close("");
    });
    let mut pty = Pty::spawn(&Started::of(&gateway).command(&World::new()));
    pty.finish();
    let screen = String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned();
    assert!(screen.contains("hello") && !screen.contains('\x1b'), "{screen:?}");
}

/// systemd and others set COLUMNS=0, which is not the user's mistake: the log and `doctor` report it, not each start.
#[test]
fn systemd_columns_0_is_not_worth_a_line() {
    let mut world = World::new();
    let log = world.path("log");
    world.set("COLUMNS", "0");
    world.set("SSM_PLUGIN_LOG", "info");
    world.set("SSM_PLUGIN_LOG_FILE", &log.display().to_string());
    let finished = greet(&world);
    assert_eq!(finished.errors(), "");
    let words = "COLUMNS=\"0\": the value must be a number from 1 to 65535; using the default, 300";
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(log.contains(words), "{log}");
    let report = run(world.plugin().args(["doctor", "--url", "ws://127.0.0.1:1/"])).text();
    assert!(report.contains(words), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_token_among_the_arguments_is_hidden() {
    for before in ["", " ", "\n\t "] {
        assert_hidden(before);
    }
}

#[cfg(target_os = "linux")]
#[track_caller]
fn assert_hidden(before: &str) {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        while socket.input().is_some() {}
    });
    let world = World::new();
    let started = Started::of(&gateway);
    let mut command = world.plugin();
    command.arg(format!("{before}{}", started.response));
    command.args(["us-east-1", "StartSession", "", &started.request.to_string(), &started.endpoint]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let line = format!("/proc/{}/cmdline", child.id());
    let shown =
        || std::fs::read(&line).map(|line| String::from_utf8_lossy(&line).into_owned()).unwrap_or_default();
    eventually("the token is hidden", || shown().contains("xxxxxxxx"));
    let shown = shown();
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(!shown.contains(TOKEN) && !shown.contains(SESSION), "{shown}");
    assert!(shown.contains("StartSession"), "the other arguments stay: {shown}");
}
