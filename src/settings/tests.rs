use std::time::Duration;

use std::path::PathBuf;

use super::*;
use crate::{link, protocol};

fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let LoadedSettings { settings, warnings, .. } =
        LoadedSettings::from(get, std::iter::empty(), None, &Subject::default());
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

/// The library's defaults are the program's.
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
    assert_eq!(settings.log_file, None, "without a home");
    assert!(warnings.len() == 1 && warnings[0].contains(" is not set; "), "{warnings:?}");
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
        ["SSM_PLUGIN_SESSIONS=\"nine\": the value must be a number from 1 to 8; using the default, 1"]
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bad = |name: &str| name.starts_with("SSM_").then(|| OsString::from_vec(vec![b'1', 0xff]));
    let LoadedSettings { settings, warnings, .. } =
        LoadedSettings::from(bad, std::iter::empty(), None, &Subject::default());
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

fn load(pairs: &[(&str, &str)], file: &str) -> LoadedSettings {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    LoadedSettings::from(
        get,
        pairs.iter().map(|(name, _)| OsString::from(name)),
        Some(&path),
        &Subject::default(),
    )
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
            ("SSM_PLUGIN_QUIET", Source::File),
            ("SSM_PLUGIN_LOG_FILE", Source::File),
            ("SSM_PLUGIN_MESSAGE_RATE", Source::File),
        ]
    );
}

#[test]
fn a_bad_value_of_the_file_is_reported_as_the_file_s() {
    let loaded = load(&[], "sessions = 9\n");
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "sessions = \"9\" in the settings file: the value must be a number from 1 to 8; using the default, 1"
        ]
    );
    assert_eq!(loaded.settings, Settings::default());
}

#[test]
fn an_unknown_variable_is_reported() {
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
fn a_condition_outside_of_a_section_is_called_that() {
    let (_, warnings) = load_for(&Subject::default(), &[], "host = 'db'\nhots = 'db'\n");
    assert_eq!(
        warnings,
        ["host is a condition, and belongs in a [[match]] section", "unknown setting hots; see --help"]
    );
}

#[test]
fn the_names_that_help_prints_and_their_short_forms() {
    for key in ["SSM_PLUGIN_RESTART", "RESTART", "restart", "ssm_plugin_restart"] {
        let loaded = load(&[], &format!("{key} = true\n"));
        assert_eq!(
            (loaded.settings.restart, loaded.warnings.len()),
            (true, 0),
            "{key}: {:?}",
            loaded.warnings
        );
    }
    let loaded = load(&[], "RESTART = true\nrestart = true\n");
    assert!(loaded.warnings[0].to_string().ends_with("restart is set twice, under two of its names"));
}

#[test]
fn units() {
    for (value, expected) in
        [("64M", 64 << 20), ("64 MiB", 64 << 20), ("2097152", 2 << 20), ("1g", 1 << 30), ("2048kb", 2 << 20)]
    {
        assert_eq!(
            read(&[("SSM_PLUGIN_BUFFER", value)]),
            (Settings { buffer: expected, ..Settings::default() }, vec![])
        );
    }
    for (value, expected) in
        [("30s", 30), ("5m", 300), ("45", 45), ("2h", 7200), ("1 d", 86_400), ("90S", 90)]
    {
        let (settings, warnings) = read(&[("SSM_PLUGIN_RECONNECT_TIMEOUT", value)]);
        assert_eq!(
            (settings.reconnect_timeout, warnings),
            (Duration::from_secs(expected), vec![]),
            "{value}"
        );
    }
    for (name, value) in [
        ("SSM_PLUGIN_BUFFER", "64X"),
        ("SSM_PLUGIN_BUFFER", "64Mi M"),
        ("SSM_PLUGIN_BUFFER", "M"),
        ("SSM_PLUGIN_BUFFER", "99999999999999999999G"),
        ("SSM_PLUGIN_BUFFER", "18446744073709551615G"),
        ("SSM_PLUGIN_PING_INTERVAL", "2d"),
        ("SSM_PLUGIN_PING_INTERVAL", "5x"),
        ("SSM_PLUGIN_PING_INTERVAL", "-5s"),
    ] {
        let (settings, warnings) = read(&[(name, value)]);
        assert_eq!((settings, warnings.len()), (Settings::default(), 1), "{name}={value}");
    }
    assert_eq!(
        read(&[("SSM_PLUGIN_PING_INTERVAL", "soon")]).1,
        [
            "SSM_PLUGIN_PING_INTERVAL=\"soon\": the value must be a time from 1s to 1d, such as 30s or 5m; using the default, 30s"
        ]
    );
    assert_eq!(
        read(&[("SSM_PLUGIN_BUFFER", "1K")]).1,
        [
            "SSM_PLUGIN_BUFFER=\"1K\": the value must be a number of bytes from 1M to 4G, such as 64M; using the default, 64M"
        ]
    );
}

#[test]
fn lists_and_words_in_both_places() {
    let expected =
        read(&[("SSM_PLUGIN_FORWARD", "15432:db.internal:5432,16379:cache.internal:6379")]).0.forward;
    assert_eq!(expected.list.len(), 2);
    for file in [
        "forward = ['15432:db.internal:5432', '16379:cache.internal:6379']\n",
        "forward = '15432:db.internal:5432 16379:cache.internal:6379'\n",
        "SSM_PLUGIN_FORWARD = '15432:db.internal:5432, 16379:cache.internal:6379'\n",
    ] {
        let loaded = load(&[], file);
        assert_eq!((loaded.settings.forward, loaded.warnings), (expected.clone(), vec![]), "{file}");
    }
    for value in ["yes", "on", "true", "1", "YES"] {
        assert!(load(&[], &format!("restart = '{value}'\n")).settings.restart, "{value}");
        assert!(read(&[("SSM_PLUGIN_RESTART", value)]).0.restart, "{value}");
    }
    for value in ["no", "off", "false", "0"] {
        assert!(!load(&[("SSM_PLUGIN_RESTART", value)], "restart = true\n").settings.restart, "{value}");
    }
}

#[test]
fn a_bad_forward_is_for_the_session_that_uses_it() {
    let loaded = load(&[("SSM_PLUGIN_FORWARD", "nonsense 1:db.internal:5432")], "");
    assert_eq!(loaded.settings.forward.list.len(), 1);
    assert_eq!(loaded.settings.forward.mistakes.len(), 1);
    assert!(loaded.warnings.len() == 1 && loaded.warnings[0].is_minor, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].to_string().contains("\"nonsense\""), "{:?}", loaded.warnings);
}

#[test]
fn filters_of_the_log() {
    for good in
        ["info", "TRACE", "session_manager_plugin=debug", "warn,hyper=info", "session_manager_plugin::link"]
    {
        assert_eq!(read(&[("SSM_PLUGIN_LOG", good)]).1, [""; 0], "{good}");
    }
    assert_eq!(read(&[("SSM_PLUGIN_LOG", "warn, hyper=info ")]).0.log.as_deref(), Some("warn,hyper=info"));
    assert_eq!(read(&[("SSM_PLUGIN_LOG", "info,")]).0.log.as_deref(), Some("info"));
    for bad in ["verbose", "a=b=c", "info,loud", "[lane]=debug", "session_manager_plugin[lane]"] {
        let (settings, warnings) = read(&[("SSM_PLUGIN_LOG", bad)]);
        assert_eq!((settings.log, warnings.len()), (None, 1), "{bad}");
        assert!(warnings[0].ends_with("; using the default, off"), "{warnings:?}");
    }
}

/// A settings file read for one session.
fn load_for(subject: &Subject, pairs: &[(&str, &str)], file: &str) -> (Settings, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let loaded = LoadedSettings::from(get, std::iter::empty(), Some(&path), subject);
    let place = format!("settings file {}: ", path.display());
    (loaded.settings, loaded.warnings.iter().map(|warning| warning.to_string().replace(&place, "")).collect())
}

#[test]
fn the_first_section_that_matches_wins_for_each_setting() {
    const FILE: &str = "sessions = 2\nquiet = true\n\
        [[match]]\nprofile = 'prod-*'\nhost = 'db.internal'\nrestart = true\nforward = ['16379:cache.internal:6379']\n\
        [[match]]\nprofile = 'prod-*'\nsessions = 4\nrestart = false\nforward = []\n\
        [[match]]\nsessions = 8\nping_interval = '5m'\n";
    let subject = |profile: &str, host: Option<&str>| Subject {
        profile: Some(profile.to_owned()),
        host: host.map(str::to_owned),
        ..Subject::default()
    };
    let (db, warnings) = load_for(&subject("prod-eu", Some("db.internal")), &[], FILE);
    assert_eq!(warnings, [""; 0]);
    assert_eq!((db.sessions, db.restart, db.quiet, db.forward.list.len()), (4, true, true, 1));
    let (other, _) = load_for(&subject("prod-eu", None), &[], FILE);
    assert_eq!((other.sessions, other.restart, other.forward.list.len()), (4, false, 0));
    let (dev, _) = load_for(&subject("dev", Some("db.internal")), &[], FILE);
    assert_eq!((dev.sessions, dev.restart, dev.ping_interval), (8, false, Duration::from_secs(300)));
    let environment = [("SSM_PLUGIN_SESSIONS", "3")];
    let (db, _) = load_for(&subject("prod-eu", Some("db.internal")), &environment, FILE);
    assert_eq!((db.sessions, db.restart), (3, true), "the environment wins");
}

#[test]
fn mistakes_in_sections_are_reported_for_every_session() {
    const FILE: &str = "sessions = 99\ntunnels = 1\n\
        [[match]]\nprofile = 'prod'\nwindow = 'much'\n\
        [[match]]\nhost = true\nrestart = true\n\
        [[match]]\nprofil = 'x'\nrestart = true\n\
        [[match]]\nsessions = 2\n";
    let (settings, warnings) = load_for(&Subject::default(), &[], FILE);
    assert_eq!((settings.restart, settings.sessions), (false, 2));
    for (warning, expected) in warnings.iter().zip([
        "unknown setting tunnels; see --help",
        "[[match]] section 1: window = \"much\": the value must be a number of bytes from 32K to 64M, such as 256K",
        "[[match]] section 2: host must be a pattern or a list of patterns; the section is ignored",
        "[[match]] section 3: unknown condition or setting profil; did you mean profile?; the section is ignored",
        "sessions = \"99\": the value must be a number from 1 to 8",
    ]) {
        assert_eq!(warning, expected);
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    let (_, warnings) = load_for(&Subject::default(), &[], "[match]\nprofile = 'x'\n");
    assert_eq!(
        warnings,
        ["match must be a list of sections: write the header as [[match]], with two brackets on each side"]
    );
    let (_, warnings) = load_for(&Subject::default(), &[], "[tunnels.db]\nrestart = true\n");
    assert_eq!(warnings, [""; 0], "those of the command forward");
}
