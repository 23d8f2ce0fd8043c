//! Pipes, and who calls.

use std::net::TcpStream;

use super::*;
use crate::harness::net::{Server, echo_through, eventually, opened_port, random_bytes};
use crate::harness::process::{Signal, run, run_with_input};
use crate::harness::sim::{assert_all_ended, await_pings, sim};

/// The port stayed open, into a database perhaps.
#[test]
#[ignore = "run by scripts/windows"]
fn cli_5149_the_aws_cli_is_killed() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let plugin = Started::port(&sim.endpoint(), echo.port(), 0).command(&world);
    let mut command = driver(&world, "aws.exe", "--no-console", &plugin);
    let running = Running::spawn(&mut command);
    let port = opened_port(&running.stdout);
    assert_eq!(echo_through(port, b"open"), b"open");
    running.signal(Signal::KILL);
    assert_all_ended(&sim);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is open");
}

/// Any other caller may leave it running.
#[test]
#[ignore = "run by scripts/windows"]
fn another_caller_is_killed() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let started = Started::port(&sim.endpoint(), echo.port(), 0);
    let plugin = started.command(&world);
    let running = Running::spawn(&mut driver(&world, DRIVER, "--no-console", &plugin));
    let port = opened_port(&running.stdout);
    running.signal(Signal::KILL);
    await_pings(&sim, started.id(), 2);
    assert_eq!(echo_through(port, b"open"), b"open");
    sim.close_session(started.id(), "");
    eventually("the port is closed", || TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// OpenSSH's pipes are opened for overlapped operations.
#[test]
#[ignore = "run by scripts/windows"]
fn an_overlapped_pipe_is_stdin() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let parameters = json!({"portNumber": [echo.port().to_string()]});
    let plugin = Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), parameters).command(&world);
    let mut running = Running::spawn(&mut driver(&world, DRIVER, "--stdin=ssm-test", &plugin));
    let text: String = random_bytes(3, 200_000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    for piece in text.as_bytes().chunks(10_000) {
        let hex: String = piece.iter().map(|byte| format!("{byte:04x}")).collect();
        running.send(format!("type {hex}\n"));
    }
    running.stdout.wait_until("the echo", |out| out.ends_with(&text.as_bytes()[text.len() - 100..]));
    running.close_stdin();
    running.stdout.wait_for("ended 0");
    assert!(running.finish().text().contains(&text), "the bytes differ");
    assert_all_ended(&sim);
}

#[test]
#[ignore = "run by scripts/windows"]
fn git_bash_gets_advice() {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        socket.handshake(AGENT, "Standard_Stream", &json!({}));
        while let Some(frame) = socket.input_of(wire::PAYLOAD_OUTPUT) {
            if frame.payload.ends_with(b"exit\n") {
                return socket.close("");
            }
        }
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_STATUS", "always");
    let plugin = Started::of(&gateway).command(&world);
    let pipe = "--stdin=msys-dd50a72ab4668b33-pty0-from-master";
    let mut running = Running::spawn(&mut driver(&world, DRIVER, pipe, &plugin));
    running.stderr.wait_for("this terminal (Git Bash, mintty) sends input line by line");
    running
        .send(format!("type {}\n", "exit\n".bytes().map(|byte| format!("{byte:04x}")).collect::<String>()));
    running.stdout.wait_for("Exiting session");
    running.close_stdin();
    running.stdout.wait_for("ended 0");
}

/// "Cannot perform start session: Invalid handle." there was, and a session that stayed open.
#[test]
#[ignore = "run by scripts/windows"]
fn a_piped_shell_types_what_comes() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let finished = run_with_input(&mut started.command(&world), b"echo sum-$((40+2))\nexit\n");
    finished.assert_ok();
    assert!(finished.text().contains("sum-42"), "{}", finished.text());
    assert!(finished.text().contains("Exiting session with sessionId: "), "{}", finished.text());
    assert_all_ended(&sim);
}

/// "cannot write to stdout" was said of readers that have gone.
#[test]
#[ignore = "run by scripts/windows"]
fn a_closed_stdout_is_no_failure() {
    let (mut world, sim, flood) = (
        World::new(),
        sim(),
        Server::start(|mut stream| {
            use std::io::Write;
            while stream.write_all(&[b'x'; 10_000]).is_ok() {}
        }),
    );
    world.set("SSM_PLUGIN_EXIT_CODE", "1");
    let parameters = json!({"portNumber": [flood.port().to_string()]});
    let started = Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
    let mut child = started
        .command(&world)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    let mut stdout = child.stdout.take().expect("stdout");
    std::io::Read::read_exact(&mut stdout, &mut [0; 1000]).expect("some output");
    drop(stdout);
    let output = child.wait_with_output().expect("its end");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert_all_ended(&sim);
}

#[test]
#[ignore = "run by scripts/windows"]
fn a_unix_socket_is_refused_in_words() {
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        let properties = json!({"type": "LocalPortForwarding", "portNumber": "80",
            "localConnectionType": "unix", "localUnixSocket": r"C:\x.sock"});
        socket.handshake(AGENT, "Port", &properties);
    });
    let finished = run(&mut Started::of(&gateway).command(&World::new()));
    finished.assert_ok();
    let words = r"Cannot perform start session: listen unix C:\x.sock: bind: UNIX sockets are not supported on Windows";
    assert!(finished.text().contains(words), "{}", finished.text());
}

#[test]
#[ignore = "run by scripts/windows"]
fn the_log_and_the_settings_are_in_the_local_application_data() {
    let mut world = World::new();
    let data = world.path("data");
    world.set("FOR_PROGRAM_LOCALAPPDATA", &on_windows(&data));
    world.set("SSM_PLUGIN_LOG", "info");
    let folder = data.join("session-manager-plugin");
    std::fs::create_dir_all(&folder).expect("the folder");
    std::fs::write(folder.join("config.toml"), "quiet = true\n").expect("the settings");
    let gateway = Gateway::scripted(|socket: &mut Socket| socket.close(""));
    let plugin = Started::of(&gateway).command(&world);
    let finished = run(&mut driver(&world, DRIVER, "--no-console", &plugin));
    assert_eq!(finished.text(), "ended 0\n", "the settings file says to be quiet; {}", finished.errors());
    let names = std::fs::read_dir(&folder).expect("the folder").flatten().map(|entry| entry.file_name());
    let logs: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".log")).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
}

#[test]
#[ignore = "run by scripts/windows"]
fn doctor_finds_what_windows_would() {
    let mut world = World::new();
    let (plugins, clis) = (world.path("plugins"), world.path("clis"));
    std::fs::create_dir(&plugins).expect("folder");
    std::fs::create_dir(&clis).expect("folder");
    std::fs::write(plugins.join("session-manager-plugin.cmd"), "@echo 1.2.3.4").expect("a script");
    std::fs::write(clis.join("aws.cmd"), "@echo aws-cli/2.15.3 Python/3.11").expect("a script");
    let home = world.path("profile");
    std::fs::create_dir_all(home.join(".aws")).expect("folder");
    std::fs::write(home.join(".aws/config"), "[profile there]\nregion = eu-west-1\n").expect("a profile");
    let path = format!(r"{};{};C:\windows\system32", on_windows(&plugins), on_windows(&clis));
    world.unset(&["HOME", "AWS_DEFAULT_REGION"]);
    world.set("FOR_PROGRAM_PATH", &path);
    world.set("FOR_PROGRAM_USERPROFILE", &on_windows(&home));
    let mut plugin = world.plugin();
    plugin.args(["doctor", "--profile", "there", "--url", "ws://127.0.0.1:1/"]);
    let finished = run(&mut driver(&world, DRIVER, "--no-console", &plugin));
    let text = finished.text();
    assert!(text.contains("aws-cli/2.15.3"), "aws.cmd is found: {text}");
    assert!(text.contains("session-manager-plugin is not on PATH"), "a .cmd is not started: {text}");
    assert!(text.contains("eu-west-1, from profile there"), "the profile is read: {text}");
}
