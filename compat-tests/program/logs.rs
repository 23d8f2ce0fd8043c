//! Diagnostics: off by default, private, and never in a session's way.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::greeting::greeted;
use crate::harness::process::{Finished, Running};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::wire;

/// A short session, with a hundred lines and more to log at `trace`.
#[track_caller]
fn greet(world: &World) -> Finished {
    greeted(world, 100)
}

#[track_caller]
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

/// Every file and folder below `dir`.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| [vec![path.clone()], below(&path)].concat()).collect()
}

#[test]
fn nothing_is_written_by_default() {
    let world = World::new();
    let finished = greet(&world);
    finished.assert_ok();
    assert_eq!(finished.errors(), "");
    assert_eq!(below(&world.home()), [""; 0].map(PathBuf::from), "in the home folder");
}

/// As AWS's own files have paths; the folder is created.
#[test]
fn a_log_file_below_the_home_folder() {
    let mut world = World::new();
    let config = world.home().join(".config/session-manager-plugin");
    std::fs::create_dir_all(&config).expect("the folder");
    std::fs::write(config.join("config.toml"), "log_file = \"~/logs/p.log\"\n").expect("write");
    world.set("SSM_PLUGIN_LOG", "debug");
    let finished = greet(&world);
    finished.assert_ok();
    assert_eq!(finished.errors(), "");
    let log = world.home().join("logs/p.log");
    assert!(std::fs::metadata(&log).expect("the log").len() > 0);
    assert_eq!(mode(log.parent().expect("its folder")), 0o700);
}

/// The official plugin's folder needs root (smp#14).
#[test]
fn the_default_file_is_the_user_s_and_the_day_s() {
    for state in [None, Some("state")] {
        let mut world = World::new();
        world.set("SSM_PLUGIN_LOG", "debug");
        let dir = match state {
            Some(name) => {
                world.set("XDG_STATE_HOME", &world.path(name).display().to_string());
                world.path(name).join("session-manager-plugin")
            }
            None => world.home().join(".local/state/session-manager-plugin"),
        };
        // A week and more ago; another program's.
        std::fs::create_dir_all(&dir).expect("the folder");
        let (old, foreign) = (dir.join("plugin.2020-02-29.log"), dir.join("notes.2020-02-29.log"));
        std::fs::write(&old, "old").expect("write");
        std::fs::write(&foreign, "foreign").expect("write");
        // Two sessions share the day's file, unless midnight is between them.
        for _ in 0..2 {
            let finished = greet(&world);
            finished.assert_ok();
            assert_eq!(finished.errors(), "");
        }
        assert!(!old.exists() && foreign.exists());
        let files: Vec<PathBuf> = below(&dir).into_iter().filter(|path| *path != foreign).collect();
        assert!((1..=2).contains(&files.len()), "{files:?}");
        let today = Command::new("date").args(["-u", "+plugin.%Y-%m-%d.log"]).output().expect("date");
        let today = String::from_utf8_lossy(&today.stdout).trim().to_owned();
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert!(names.contains(&today.as_str()), "{names:?}, not {today}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
            assert!(std::fs::read_to_string(&file).expect("the log").contains("session ends"));
        }
    }
}

#[test]
fn the_folder_it_makes_is_the_user_s_alone() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_LOG", "info");
    greet(&world).assert_ok();
    assert_eq!(mode(&world.home().join(".local/state/session-manager-plugin")), 0o700);
}

const CANNOT_OPEN: &str = "logging is disabled: cannot open PATH: ";

/// smp#91, agent#646: the session continues, whatever happens to its log. One line reports it.
#[test]
fn a_full_or_unwritable_disk_stops_nothing() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_LOG", "trace");
    let (file, pipe) = (world.path("file"), world.path("pipe"));
    std::fs::write(&file, "").expect("write");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    for (path, reason) in [
        // Opens, and takes nothing.
        (PathBuf::from("/dev/full"), "the log is incomplete: No space left on device"),
        (PathBuf::from("/proc/nowhere/log"), CANNOT_OPEN),
        (file.join("log"), CANNOT_OPEN),
        (world.path(""), CANNOT_OPEN),
        // Opening a pipe without a reader blocks.
        (pipe, CANNOT_OPEN),
    ] {
        world.set("SSM_PLUGIN_LOG_FILE", &path.display().to_string());
        let finished = greet(&world);
        finished.assert_ok();
        let (text, errors) = (finished.text(), finished.errors());
        assert!(text.matches("hello\r\n").count() == 100 && text.contains("Exiting session"), "{text}");
        assert_eq!(errors.lines().count(), 1, "{}: {errors}", path.display());
        let line = format!("session-manager-plugin: {}", reason.replace("PATH", &path.display().to_string()));
        assert!(errors.starts_with(&line), "{errors}");
    }
    // The state directory's, too.
    world.unset(&["SSM_PLUGIN_LOG_FILE"]);
    world.set("XDG_STATE_HOME", &file.display().to_string());
    let finished = greet(&world);
    finished.assert_ok();
    assert!(finished.errors().starts_with("session-manager-plugin: logging is disabled: cannot write to "));
}

/// A pipe whose reader has stopped reading.
#[test]
fn a_log_pipe_that_is_not_read_stops_nothing() {
    let mut world = World::new();
    let pipe = world.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    // Both ends, so that opening does not wait.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("open");
    world.set("SSM_PLUGIN_LOG", "trace");
    world.set("SSM_PLUGIN_LOG_FILE", &pipe.display().to_string());
    let gateway = Gateway::scripted(|socket: &mut Socket| {
        // More lines than a pipe and the queue hold.
        for _ in 0..20_000 {
            socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        }
        socket.close("");
    });
    let mut running = Running::spawn(&mut Started::of(&gateway).command(&world));
    let _stdin = running.take_stdin();
    let finished = running.finish();
    finished.assert_ok();
    assert_eq!(finished.text().matches("hello\r\n").count(), 20_000);
    drop(reader);
}

#[test]
fn every_line_of_the_log_names_the_session_and_no_secret() {
    let mut world = World::new();
    let (log, sim) = (world.path("log"), sim());
    world.set("SSM_PLUGIN_LOG", "trace");
    world.set("SSM_PLUGIN_LOG_FILE", &log.display().to_string());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let mut running = Running::spawn(&mut started.command(&world));
    running.send("echo swordfish-$((40+2))\n");
    running.stdout.wait_for("swordfish-42");
    running.send("exit\n");
    running.finish().assert_ok();
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.lines().count() > 1, "{text}");
    for line in text.lines() {
        assert!(line.contains(started.id()), "{line}");
    }
    // Each part of the path is there once; `trace` has a line for each message, and no value in Rust's debug form.
    for part in [
        "settings=\"SSM_PLUGIN_LOG SSM_PLUGIN_LOG_FILE\"",
        "system=\"linux\"",
        "session requested document=\"default\" target=\"i-0123456789abcdef0\" region=\"us-east-1\"",
        "host=\"127.0.0.1\" address=\"127.0.0.1:",
        "proxy=\"none\" tls=\"none\" is_signed=true",
        "\"event\":\"ready\",\"kind\":\"shell\"",
        "session ends",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part:?} in {text}");
    }
    assert!(text.contains("received kind=\"output_stream_data\" payload_type=1 number=0 length="), "{text}");
    assert!(text.contains("sent kind=\"input_stream_data\" payload_type="), "{text}");
    for form in ["Some(", "None", " { ", "Ok("] {
        assert!(!text.contains(form), "{form:?} in {text}");
    }
    let token = started.response["TokenValue"].as_str().expect("token");
    let secrets = [token, "wJalrXUtnFEMI", "swordfish", "Signature="];
    for secret in secrets {
        assert!(!text.contains(secret), "the log holds {secret:?}");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).expect("metadata").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_all_ended(&sim);
}
