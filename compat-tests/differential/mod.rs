//! The same scripts against the official plugin and ours.
//!
//! `transcripts/<script>.txt` is what the official plugin did when it was recorded; with `REFERENCE_PLUGIN` it must
//! still do so. Ours must do the same, but for the scripts that `deviations` names with a reason: there ours must
//! differ, in exactly the way of `transcripts/<script>.ours.txt`.
//!
//! Differences that no script can show to both plugins (a setting of ours, a network that fails) is in the same
//! list, with the tests that prove it: see [`deviations`].
//!
//! `SSM_COMPAT_RECORD=1` writes the files instead of comparing: the official ones with `REFERENCE_PLUGIN`, and
//! ours for the scripts that deviate.

mod deviations;
mod scripts;

use std::path::{Path, PathBuf};

use crate::harness::{plugin, read, reference_plugin};

/// Runs one script against each plugin and compares.
#[track_caller]
fn compare(name: &str) {
    let script = scripts::named(name);
    let official = official_transcript(name, script);
    let ours = script(&plugin());
    match deviations::all().get(name) {
        None => assert_eq!(ours, official, "{name}: a difference that `deviations` does not name"),
        Some(_) => {
            assert_ne!(ours, official, "{name}: `deviations` names it, but there is no difference");
            let path = transcripts().join(format!("{name}.ours.txt"));
            if recording() {
                std::fs::write(&path, &ours).expect("write transcript");
            }
            assert_eq!(
                ours,
                read(&path),
                "{name}: differs from the official plugin in another way than recorded"
            );
        }
    }
}

fn official_transcript(name: &str, script: scripts::Script) -> String {
    let path = transcripts().join(format!("{name}.txt"));
    if let Some(reference) = reference_plugin() {
        let official = script(&reference);
        if recording() {
            std::fs::write(&path, &official).expect("write transcript");
        }
        // Where the official plugin's threads race, both outcomes are recorded.
        let other = std::fs::read_to_string(transcripts().join(format!("{name}.also.txt")));
        if other.is_ok_and(|other| other == official) {
            return read(&path);
        }
        assert_eq!(official, read(&path), "{name}: the official plugin no longer does what was recorded");
    }
    read(&path)
}

#[test]
fn every_transcript_is_used() {
    let deviations = deviations::all();
    for entry in std::fs::read_dir(transcripts()).expect("transcripts") {
        let file = entry.expect("transcript").file_name().to_string_lossy().into_owned();
        let name = file.trim_end_matches(".txt").trim_end_matches(".ours").trim_end_matches(".also");
        assert!(scripts::ALL.iter().any(|(known, _)| *known == name), "transcripts/{file}: no such script");
        if file.ends_with(".ours.txt") {
            assert!(deviations.contains_key(name), "transcripts/{file}: not in `deviations`");
        }
    }
}

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/transcripts")
}

fn recording() -> bool {
    std::env::var_os("SSM_COMPAT_RECORD").is_some()
}

macro_rules! compared {
    ($($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            compare(&stringify!($test).replace('_', "-"));
        })*

        #[test]
        fn every_script_is_compared() {
            let compared = [$(stringify!($test).replace('_', "-")),*];
            for (name, _) in scripts::ALL {
                assert!(compared.iter().any(|known| known == name), "{name} is not compared");
            }
        }
    };
}

compared!(
    argv_none,
    argv_version,
    argv_unknown_word,
    argv_help,
    argv_other_operation,
    argv_bad_json,
    argv_missing_field,
    argv_no_target,
    open_request,
    shell_greeting,
    shell_ended_with_reason,
    shell_input,
    shell_enter,
    shell_stdin_eof,
    shell_customer_message,
    command_streams_and_exit_code,
    handshake_answer,
    handshake_unknown_action,
    port_multiplexed,
    port_basic,
    port_ended_with_reason,
    port_interrupted,
    port_interrupted_old_agent,
    port_in_use,
    port_refused_destination,
    ssh_bytes,
    ssh_newline,
    ssh_stdin_eof,
);
