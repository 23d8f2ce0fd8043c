//! Other users of the machine: files that they can exchange.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::greeting::greeted;
use crate::harness::process::run;
use crate::harness::pty::Pty;
use crate::harness::{World, is_root, read, wire};

/// A world with a settings file, and its path.
fn world(settings: &str) -> (World, PathBuf) {
    let world = World::new();
    let dir = world.home().join(".config/session-manager-plugin");
    std::fs::create_dir_all(&dir).expect("config folder");
    let path = dir.join("config.toml");
    std::fs::write(&path, settings).expect("config file");
    (world, path)
}

#[track_caller]
fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

#[track_caller]
fn assert_ignored(world: &World, settings: &Path, reason: &str) {
    let finished = greeted(world, 1);
    finished.assert_ok();
    // It would have been quiet.
    assert!(finished.text().starts_with("\nStarting session with SessionId: "), "{}", finished.text());
    let line = format!("session-manager-plugin: settings file {} is ignored: {reason}", settings.display());
    let errors = finished.errors();
    assert!(errors.starts_with(&line) && errors.lines().count() == 1, "{line} is not {errors}");
}

#[test]
fn settings_that_others_can_write_are_ignored() {
    let (world, path) = world("quiet = true\n");
    assert_eq!(greeted(&world, 1).text(), "hello\r\n");
    let folder = path.parent().expect("a folder");
    for (changed, mode) in [(path.as_path(), 0o666), (folder, 0o777), (&world.home(), 0o757)] {
        set_mode(changed, mode);
        let reason = format!(
            "other users can write to {} (mode {mode:o}); to prevent that, run chmod go-w ",
            changed.display()
        );
        assert_ignored(&world, &path, &reason);
        set_mode(changed, 0o700);
    }
    assert_eq!(greeted(&world, 1).text(), "hello\r\n");
}

#[test]
fn settings_of_another_user_are_ignored() {
    // Only root can give a file away.
    if is_root() {
        let (world, path) = world("quiet = true\n");
        chown(&path, Some(65_534), None).expect("chown");
        assert_ignored(&world, &path, &format!("{} belongs to another user (uid 65534)", path.display()));
    }
}

/// With `stow`, in Nix and elsewhere the file is a link.
#[test]
fn settings_behind_a_link_are_judged_where_they_are() {
    let (world, path) = world("");
    let folder = world.path("dotfiles");
    std::fs::create_dir(&folder).expect("folder");
    std::fs::write(folder.join("plugin.toml"), "quiet = true\n").expect("write");
    std::fs::remove_file(&path).expect("remove");
    symlink(folder.join("plugin.toml"), &path).expect("link");
    assert_eq!(greeted(&world, 1).text(), "hello\r\n");
    set_mode(&folder, 0o777);
    assert_ignored(&world, &path, &format!("other users can write to {} (mode 777)", folder.display()));
}

#[test]
fn doctor_shows_settings_in_use_next_to_warnings() {
    let (mut world, path) = world("quiet = true\n");
    set_mode(&path, 0o666);
    world.set("SSM_PLUGIN_WINDOW", "65536");
    let report = run(world.plugin().args(["doctor", "--url", "ws://127.0.0.1:1/"])).text();
    assert!(report.contains("is ignored: other users can write to "), "{report}");
    assert!(report.contains("set in the environment: SSM_PLUGIN_WINDOW"), "{report}");
    assert!(!report.contains("SSM_PLUGIN_QUIET"), "{report}");
}

/// Asserts that nothing was written and that one line has the reason.
#[track_caller]
fn assert_not_written(world: &World, what: &str, path: &Path, reason: &str) {
    let finished = greeted(world, 1);
    finished.assert_ok();
    assert!(finished.text().contains("hello\r\n"));
    let errors = finished.errors();
    let line = format!("session-manager-plugin: {what} {}: {reason}", path.display());
    assert!(errors.starts_with(&line) && errors.lines().count() == 1, "{line} is not {errors}");
}

#[test]
fn logs_are_not_written_through_links_or_in_open_folders() {
    for (setting, what) in LOGS {
        let mut world = World::new();
        world.set("SSM_PLUGIN_LOG", if setting == "SSM_PLUGIN_LOG_FILE" { "debug" } else { "off" });
        let (victim, link, folder) = (world.path("victim"), world.path("link"), world.path("folder"));
        std::fs::write(&victim, "precious").expect("write");
        set_mode(&victim, 0o644);
        symlink(&victim, &link).expect("link");
        world.set(setting, &link.display().to_string());
        assert_not_written(&world, what, &link, "it is a symbolic link");

        let second = world.path("second");
        std::fs::hard_link(&victim, &second).expect("hard link");
        world.set(setting, &second.display().to_string());
        assert_not_written(
            &world,
            what,
            &second,
            &format!("{} has more than one hard link", second.display()),
        );
        assert_eq!(read(&victim), "precious");
        assert_eq!(std::fs::metadata(&victim).expect("metadata").permissions().mode() & 0o777, 0o644);

        std::fs::create_dir(&folder).expect("folder");
        set_mode(&folder, 0o777);
        let file = folder.join("log");
        world.set(setting, &file.display().to_string());
        let reason = format!("other users can write to {} (mode 777)", folder.display());
        assert_not_written(&world, what, &file, &reason);
        assert!(!file.exists());
        // As in /tmp, where only the owner can replace a file.
        set_mode(&folder, 0o1777);
        assert_eq!(greeted(&world, 1).errors(), "");
        assert!(file.exists());
    }
}

#[test]
fn a_log_on_stderr_is_still_possible() {
    let mut world = World::new();
    world.set("SSM_PLUGIN_LOG", "info");
    world.set("SSM_PLUGIN_LOG_FILE", "/dev/stderr");
    let errors = greeted(&world, 1).errors();
    assert!(errors.contains("session ends"), "{errors}");
}

/// Returns whether a line of either log is in `text`.
fn has_log(text: &str) -> bool {
    text.contains("session_manager_plugin::") || text.contains("\"recording\":")
}

/// stdout is the session's, whatever name it has: callers parse it, and a log in it is data of the remote's.
#[test]
fn no_log_is_written_into_the_session_s_output() {
    let (mut world, mut names) = (World::new(), vec!["/dev/stdout", "/dev/fd/1"]);
    if cfg!(target_os = "linux") {
        names.push("/proc/self/fd/1");
    }
    let output = world.path("output");
    let own_name = output.display().to_string();
    names.push(&own_name);
    for (setting, what) in LOGS {
        world.set("SSM_PLUGIN_LOG", if setting == "SSM_PLUGIN_LOG_FILE" { "trace" } else { "off" });
        for name in &names {
            world.set(setting, name);
            let expected = format!("session-manager-plugin: {what} {name}: ");
            if *name != own_name {
                let finished = greeted(&world, 1);
                assert!(!has_log(&finished.text()), "{name}: {}", finished.text());
                let errors = finished.errors();
                assert!(errors.starts_with(&expected) && errors.lines().count() == 1, "{name}: {errors}");
            }
            let file = std::fs::File::create(&output).expect("create");
            let gateway = Gateway::scripted(|socket: &mut Socket| socket.close(""));
            let mut command = Started::of(&gateway).command(&world);
            command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped());
            let finished = command.spawn().and_then(Child::wait_with_output).expect("run the plugin");
            let (text, errors) = (read(&output), String::from_utf8_lossy(&finished.stderr).into_owned());
            assert!(text.contains("Exiting session") && !has_log(&text), "{name}: {text}");
            assert!(errors.starts_with(&expected), "{name}: {errors}");
            assert!(
                errors.contains("the session's output goes there") && errors.lines().count() == 1,
                "{errors}"
            );
        }
        world.unset(&[setting]);
    }
}

#[test]
fn no_log_is_written_onto_the_session_s_terminal() {
    for name in ["/dev/stderr", "/dev/tty", "/dev/stdout"] {
        let gateway = Gateway::scripted(|socket: &mut Socket| {
            let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
            socket.acknowledged(number);
            socket.close("");
        });
        let mut world = World::new();
        world.set("SSM_PLUGIN_LOG", "trace");
        world.set("SSM_PLUGIN_LOG_FILE", name);
        let mut pty = Pty::spawn(&Started::of(&gateway).command(&world));
        assert!(pty.finish().success());
        let screen = String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned();
        let line = format!("logging is disabled: cannot open {name}: the session's output goes there");
        assert_eq!(screen.matches(&line).count(), 1, "{screen}");
        assert!(screen.contains("hello") && !has_log(&screen), "{screen}");
    }
}

/// Settings that name a file to write to, and the beginnings of the lines about files that are refused.
const LOGS: [(&str, &str); 2] = [
    ("SSM_PLUGIN_LOG_FILE", "logging is disabled: cannot open"),
    ("SSM_PLUGIN_WIRE_LOG", "the wire log is disabled: cannot write to"),
];
