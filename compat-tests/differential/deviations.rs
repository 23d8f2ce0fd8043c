//! The committed list of intended differences, `compat-tests/deviations.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::scripts;
use crate::harness::process::run;
use crate::harness::{World, read};

/// One intended difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    official: String,
    ours: String,
    reason: String,
    /// The tests that prove what is ours, by the names that `cargo test --test compat` shows.
    #[serde(default)]
    tests: Vec<String>,
    /// The tests that `scripts/windows` runs: ignored ones of this program, or the library's.
    #[serde(default)]
    windows: Vec<String>,
}

/// The list, by name.
#[track_caller]
pub fn all() -> BTreeMap<String, Deviation> {
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/deviations.toml"));
    toml::from_str(&text).unwrap_or_else(|error| panic!("deviations.toml: {error}"))
}

#[test]
fn every_deviation_is_complete() {
    for (name, deviation) in all() {
        let complete =
            [&deviation.official, &deviation.ours, &deviation.reason].iter().all(|text| !text.is_empty());
        assert!(complete, "deviations: {name} lacks a line: {deviation:?}");
    }
}

/// By a script that is compared, or by tests that exist and are run.
#[test]
fn every_deviation_is_proved() {
    let tests = listed(&[]);
    let ignored = listed(&["--ignored"]);
    assert!(tests.len() > 300, "only {} tests are listed", tests.len());
    for (name, deviation) in all() {
        let is_compared = scripts::ALL.iter().any(|(known, _)| *known == name);
        assert!(
            is_compared || !deviation.tests.is_empty() || !deviation.windows.is_empty(),
            "deviations: no script is called {name}, and no test is named"
        );
        for test in &deviation.tests {
            assert!(tests.contains(test), "deviations: {name} names {test}, and there is no such test");
            assert!(!ignored.contains(test), "deviations: {name} names {test}, which is not run");
        }
        for test in &deviation.windows {
            let exists = ignored.contains(test) || is_unit_test(test);
            assert!(exists, "deviations: {name} names {test}, and scripts/windows runs no such test");
        }
    }
}

/// The security policy names tests, too.
#[test]
fn every_promise_of_the_security_policy_is_proved() {
    let (tests, ignored) = (listed(&[]), listed(&["--ignored"]));
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/SECURITY.md"));
    let quoted = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|word| word.contains("::")).collect();
    assert!(named.len() > 20, "SECURITY: only {named:?}");
    for test in named {
        assert!(tests.contains(test), "SECURITY names {test}, and there is no such test");
        assert!(!ignored.contains(test), "SECURITY names {test}, which is not run");
    }
    for promise in text.split("\n- ").skip(1) {
        let (promise, _) = promise.split_once("\n\n").unwrap_or((promise, ""));
        assert!(promise.contains("::"), "SECURITY names no test for: {promise}");
    }
}

/// Returns whether the library has this test in the file that its path names.
fn is_unit_test(test: &str) -> bool {
    let Some((path, name)) = test.rsplit_once("::") else { return false };
    let modules: Vec<&str> = path.split("::").collect();
    (1..=modules.len()).any(|count| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(modules[..count].join("/"));
        [path.with_extension("rs"), path.join("tests.rs")]
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .any(|text| text.contains(&format!("fn {name}()")))
    })
}

/// None of our own settings exist in the official plugin.
#[test]
fn every_setting_of_ours_is_a_deviation() {
    let all = all();
    let help = run(World::new().plugin().arg("--help")).text();
    let is_name = |word: &&str| word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    let (_, settings) = help.split_once("SETTINGS: ").expect("settings");
    let (settings, _) = settings.split_once("EXAMPLES").expect("their end");
    let rows = settings.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let settings: Vec<&str> = rows.filter(is_name).collect();
    assert!(settings.contains(&"LINES") && settings.contains(&SETTING_OF_BOTH), "{settings:?}");
    for setting in settings.into_iter().filter(|name| *name != SETTING_OF_BOTH) {
        let names = |deviation: &Deviation| {
            let mut words =
                deviation.ours.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            words.any(|word| word == setting)
        };
        assert!(all.values().any(names), "deviations: {setting} is in no entry");
    }
}

/// The tests of this program, as it lists them itself.
fn listed(words: &[&str]) -> BTreeSet<String> {
    let program = std::env::current_exe().expect("this program's path");
    let output = Command::new(program).arg("--list").args(words).output().expect("run this program");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

const SETTING_OF_BOTH: &str = "SSM_PLUGIN_SKIP_CLIENT_CONFIGURE";
