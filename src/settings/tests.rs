use std::time::Duration;

use std::path::PathBuf;

use super::warning::distance;
use super::*;
use crate::{link, protocol};

fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let Loaded { settings, warnings, .. } = Loaded::from(get, std::iter::empty(), None);
    (settings, warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn the_defaults_are_the_table_s() {
    let (settings, warnings) = read(&[]);
    assert!(warnings.is_empty());
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.sessions, 1);
    assert_eq!(settings.message_rate, 900);
    assert_eq!(settings.max_payload, 1024);
    assert_eq!(settings.window, 262_144);
    assert_eq!(settings.open_timeout, Duration::from_secs(30));
    assert_eq!(settings.handshake_timeout, Duration::from_secs(60));
    assert_eq!(settings.reconnect_timeout, Duration::from_secs(300));
    assert_eq!(settings.ping_interval, Duration::from_secs(30));
    assert_eq!((settings.columns, settings.lines), (300, 100));
    assert_eq!(settings.status, When::Auto);
    assert!(!settings.exit_code && !settings.quiet && !settings.skip_client_configure);
    assert_eq!((settings.local_host, settings.log, settings.log_file), (None, None, None));
}

/// What programs that use the library get is what the program uses.
#[test]
fn the_defaults_are_those_of_the_library() {
    let settings = Settings::default();
    let link = link::Config::default();
    assert_eq!(
        (settings.open_timeout, settings.reconnect_timeout, settings.ping_interval),
        (link.open_timeout, link.reconnect_timeout, link.ping_interval)
    );
    let protocol::Config { client_version, message_rate, max_payload, max_window, .. } = link.channel;
    assert_eq!(settings.reported_version, client_version);
    assert_eq!(
        (settings.message_rate, settings.max_payload, settings.window),
        (message_rate, max_payload, max_window)
    );
    let size = link.channel.initial_size;
    assert_eq!(settings.handshake_timeout, link.channel.handshake_timeout);
    assert_eq!((settings.columns, settings.lines), (size.cols, size.rows));
}

#[test]
fn white_space_is_no_value() {
    let all: Vec<(&str, &str)> = TABLE.iter().map(|row| (row.name, " \t")).collect();
    let (settings, warnings) = read(&all);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings, Settings::default());
    assert_eq!(load(&all, "quiet = ' '\n").set, []);
}

#[test]
fn variables_of_others_are_not_worth_a_line() {
    let loaded = load(&[("COLUMNS", "0"), ("SSM_PLUGIN_WINDOW", "0")], "");
    let minor: Vec<bool> = loaded.warnings.iter().map(|warning| warning.is_minor).collect();
    assert_eq!(minor, [false, true], "{:?}", loaded.warnings);
}

#[test]
fn good_values() {
    let (settings, warnings) = read(&[
        ("SSM_PLUGIN_EXIT_CODE", "1"),
        ("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "TRUE"),
        ("SSM_PLUGIN_LOCAL_HOST", " 0.0.0.0 "),
        ("SSM_PLUGIN_SESSIONS", "8"),
        ("SSM_PLUGIN_MESSAGE_RATE", "0"),
        ("SSM_PLUGIN_STATUS", "never"),
        ("SSM_PLUGIN_LOG", "debug"),
        ("SSM_PLUGIN_LOG_FILE", "/tmp/x"),
        ("SSM_PLUGIN_QUIET", ""),
        ("COLUMNS", "80"),
    ]);
    assert_eq!(warnings, [""; 0]);
    assert!(settings.exit_code && settings.skip_client_configure && !settings.quiet);
    assert_eq!(settings.local_host.as_deref(), Some("0.0.0.0"));
    assert_eq!((settings.sessions, settings.message_rate), (8, 0));
    assert_eq!((settings.columns, settings.lines), (80, 100));
    assert_eq!((settings.status, settings.log.as_deref()), (When::Never, Some("debug")));
    assert_eq!(settings.log_file, Some(PathBuf::from("/tmp/x")));
    assert_eq!(read(&[("SSM_PLUGIN_LOG", "off")]).0.log, None);
}

#[cfg(not(windows))]
#[test]
fn the_state_directory() {
    for (environment, expected) in [
        (&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/a")][..], Some("/state")),
        (&[("XDG_STATE_HOME", "relative"), ("HOME", "/home/a")], Some("/home/a/.local/state")),
        (&[("HOME", "/home/a")], Some("/home/a/.local/state")),
        (&[], None),
    ] {
        assert_eq!(read(environment).0.state_dir, expected.map(PathBuf::from), "{environment:?}");
    }
}

#[cfg(windows)]
#[test]
fn the_state_directory() {
    let (local, home) = (r"C:\Users\a\AppData\Local", r"C:\Users\a");
    let environment = [("LOCALAPPDATA", local), ("XDG_STATE_HOME", r"C:\state"), ("HOME", home)];
    assert_eq!(read(&environment).0.state_dir, Some(PathBuf::from(local)));
    assert_eq!(read(&[("LOCALAPPDATA", "relative")]).0.state_dir, None);
}

/// As in AWS's own files; a shell expands neither what the settings file holds nor what another program passes on.
#[test]
fn a_tilde_is_the_home_directory() {
    let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let home = if cfg!(windows) { r"C:\Users\a" } else { "/home/a" };
    let file = |text: &str| {
        let loaded = load(&[(name, home)], text);
        assert_eq!(loaded.warnings, [], "{text}");
        loaded.settings
    };
    let expected = Some(PathBuf::from(home).join("p.log"));
    assert_eq!(file("log_file = '~/p.log'\n").log_file, expected);
    assert_eq!(file("wire_log = '~/p.log'\n").wire_log, expected);
    assert_eq!(read(&[(name, home), ("SSM_PLUGIN_LOG_FILE", "~/p.log")]).0.log_file, expected);
    for other in ["~root/p.log", "./~/p.log", "p~.log", "x/~"] {
        let kept = read(&[(name, home), ("SSM_PLUGIN_LOG_FILE", other)]).0.log_file;
        assert_eq!(kept, Some(PathBuf::from(other)));
    }
    let (settings, warnings) = read(&[("SSM_PLUGIN_LOG_FILE", "~/p.log")]);
    assert_eq!((settings.log_file, warnings.len()), (None, 1), "without a home: {warnings:?}");
}

/// `\t` and `\n` are a tab and a line's end in double quotes.
#[test]
fn a_path_whose_backslashes_were_escapes() {
    let loaded = load(&[], "log_file = \"C:\\temp\\new.log\"\n");
    assert_eq!(loaded.settings.log_file, None);
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("put a path with backslashes in single quotes"), "{warning}");
}

#[test]
fn an_address_may_have_brackets() {
    for (value, expected) in [
        ("[::1]", "::1"),
        (" [fe80::1] ", "fe80::1"),
        ("::1", "::1"),
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("[::1", "[::1"),
        ("[]", "[]"),
        ("db.internal", "db.internal"),
    ] {
        let host = read(&[("SSM_PLUGIN_LOCAL_HOST", value)]).0.local_host;
        assert_eq!(host.as_deref(), Some(expected), "{value}");
    }
}

#[test]
fn a_bad_value_costs_one_warning_and_the_default() {
    for (name, value) in [
        ("SSM_PLUGIN_EXIT_CODE", "maybe"),
        ("SSM_PLUGIN_SESSIONS", "9"),
        ("SSM_PLUGIN_SESSIONS", "0"),
        ("SSM_PLUGIN_MESSAGE_RATE", "-1"),
        ("SSM_PLUGIN_MAX_PAYLOAD", "40000"),
        ("SSM_PLUGIN_MAX_PAYLOAD", "1"),
        ("SSM_PLUGIN_WINDOW", "1024"),
        ("SSM_PLUGIN_STATUS", "sometimes"),
        ("SSM_PLUGIN_REPORTED_VERSION", "1.2.3.4.5"),
        ("SSM_PLUGIN_REPORTED_VERSION", "1.2.3"),
        ("SSM_PLUGIN_REPORTED_VERSION", "1..2.3"),
        ("SSM_PLUGIN_REPORTED_VERSION", "1.2.3.99999999999"),
        ("SSM_PLUGIN_REPORTED_VERSION", "v1"),
        ("SSM_PLUGIN_PING_INTERVAL", "0"),
        ("SSM_PLUGIN_OPEN_TIMEOUT", "99999999999999999999999"),
        ("LINES", "0"),
        ("COLUMNS", "70000"),
    ] {
        let (settings, warnings) = read(&[(name, value)]);
        assert_eq!(settings, Settings::default(), "{name}={value}");
        assert_eq!(warnings.len(), 1, "{name}={value}");
    }
    assert_eq!(
        read(&[("SSM_PLUGIN_SESSIONS", "nine")]).1,
        ["SSM_PLUGIN_SESSIONS=\"nine\" is not a number from 1 to 8, using 1"]
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bad = |name: &str| name.starts_with("SSM_").then(|| OsString::from_vec(vec![b'1', 0xff]));
    let Loaded { settings, warnings, .. } = Loaded::from(bad, std::iter::empty(), None);
    assert_eq!(Settings { log_file: None, wire_log: None, ..settings }, Settings::default());
    // Every variable of ours but the two files, whose names may be any bytes.
    assert_eq!(warnings.len(), TABLE.iter().filter(|row| row.name.starts_with(PREFIX)).count() - 2);
}

/// The default that `--help` shows is the one that counts.
#[test]
fn every_default_that_is_a_value_is_the_default() {
    let shown: Vec<(&str, String)> = TABLE.iter().map(|row| (row.name, row.default_text())).collect();
    let numbers: Vec<(&str, &str)> = shown
        .iter()
        .filter(|(_, text)| text.starts_with(|first: char| first.is_ascii_digit()))
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    assert!(numbers.len() > 15, "{numbers:?}");
    let (settings, warnings) = read(&numbers);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings, Settings::default());
}

fn load(pairs: &[(&str, &str)], file: &str) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    Loaded::from(get, pairs.iter().map(|(name, _)| OsString::from(name)), Some(&path))
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = "sessions = 2\nmessage_rate = 0\nquiet = true\nlog_file = '/tmp/x'\n";
    let loaded = load(&[("SSM_PLUGIN_SESSIONS", "3"), ("SSM_PLUGIN_QUIET", "")], file);
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.settings.sessions, loaded.settings.message_rate), (3, 0));
    assert!(loaded.settings.quiet, "an empty variable is none");
    assert_eq!(loaded.settings.log_file, Some(PathBuf::from("/tmp/x")));
    assert_eq!(
        loaded.set,
        [
            ("SSM_PLUGIN_SESSIONS", Source::Environment),
            ("SSM_PLUGIN_LOG_FILE", Source::File),
            ("SSM_PLUGIN_MESSAGE_RATE", Source::File),
            ("SSM_PLUGIN_QUIET", Source::File),
        ]
    );
}

#[test]
fn a_bad_value_of_the_file_is_said_as_the_file_s() {
    let loaded = load(&[], "sessions = 9\n");
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["sessions = \"9\" in the settings file is not a number from 1 to 8, using 1"]);
    assert_eq!(loaded.settings, Settings::default());
}

#[test]
fn a_variable_nobody_knows_is_said() {
    let loaded = load(&[("SSM_PLUGIN_MESAGE_RATE", "1"), ("SSM_PLUGIN_FROBNICATE", "1"), ("OTHER", "1")], "");
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "unknown setting SSM_PLUGIN_MESAGE_RATE; did you mean SSM_PLUGIN_MESSAGE_RATE?",
            "unknown setting SSM_PLUGIN_FROBNICATE; see --help"
        ]
    );
}

#[test]
fn distances() {
    for (from, to, expected) in
        [("", "abc", 3), ("abc", "abc", 0), ("abc", "ac", 1), ("ac", "abd", 2), ("kitten", "sitting", 3)]
    {
        assert_eq!(distance(from, to), expected, "{from} {to}");
        assert_eq!(distance(to, from), expected, "{to} {from}");
    }
}
