//! The plugin, the AWS CLI, the settings and files of this machine.

use super::{assert_check, channel, check, doctor, install, world};
use crate::harness::sim::sim;
use crate::harness::{World, named_pipe};

#[test]
fn another_plugin_is_found_first_or_none() {
    let sim = sim();
    let mut world = world(&sim);
    install(&world, "session-manager-plugin", "#!/bin/sh\necho 1.2.707.0\n");
    let url = channel(&sim);
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "plugin", "warning", "a different program, version 1.2.707.0");
    assert_eq!(finished.status.code(), Some(0), "a warning is no failure");
    install(&world, "session-manager-plugin", "#!/bin/sh\nexit 3\n");
    assert_check(&doctor(&world, &["--url", &url]).1, "plugin", "warning", "fails to run");
    world.set("PATH", "/nowhere");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "plugin", "failure", "session-manager-plugin is not on PATH");
    assert_check(&report, "aws-cli", "warning", "aws is not on PATH");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn an_old_or_broken_cli() {
    let sim = sim();
    let (world, url) = (world(&sim), channel(&sim));
    install(&world, "aws", "#!/bin/sh\necho aws-cli/2.9.19 Python/3.11.2\n");
    assert_check(
        &doctor(&world, &["--url", &url]).1,
        "aws-cli",
        "warning",
        "token as a command-line argument",
    );
    // The last of each line that did so, and the first that does not.
    for (version, status) in
        [("1.30.2", "warning"), ("1.30.3", "ok"), ("2.13.36", "warning"), ("2.13.37", "ok")]
    {
        install(&world, "aws", &format!("#!/bin/sh\necho aws-cli/{version} Python/3.11.2\n"));
        assert_check(&doctor(&world, &["--url", &url]).1, "aws-cli", status, version);
    }
    install(&world, "aws", "#!/bin/sh\nexit 1\n");
    assert_check(&doctor(&world, &["--url", &url]).1, "aws-cli", "failure", "cannot be run");
    install(&world, "aws", "#!/bin/sh\nprintf 'something \\033[2Jelse\\n'\n");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "aws-cli", "warning", "does not look like the AWS CLI");
    assert!(!finished.text().contains('\x1b'));
}

#[test]
fn a_profile_file_that_blocks() {
    let sim = sim();
    let url = channel(&sim);
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let mut world = world(&sim);
        let pipe = world.path("pipe");
        named_pipe(&pipe);
        world.set(variable, &pipe.display().to_string());
        let (finished, report) = doctor(&world, &["--url", &url]);
        assert_eq!(finished.status.code(), Some(1));
        let words = format!("{} (from {variable}) cannot be read: it is not a regular file", pipe.display());
        assert_check(&report, "credentials", "failure", &words);
    }
}

#[test]
fn the_note_on_ansible_needs_ansible() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("PATH", &format!("{}:/bin", world.path("bin").display()));
    let url = channel(&sim);
    let plugin = |world: &World| check(&doctor(world, &["--url", &url]).1, "plugin").to_string();
    assert!(!plugin(&world).contains("Ansible"), "{}", plugin(&world));
    install(&world, "ansible-playbook", "#!/bin/sh\n");
    let usual = std::path::Path::new("/usr/local/bin/session-manager-plugin");
    assert!(plugin(&world).contains("Ansible") || usual.exists(), "{}", plugin(&world));
}

#[test]
fn settings_and_log() {
    let sim = sim();
    let mut world = world(&sim);
    let url = channel(&sim);
    world.set("SSM_PLUGIN_WINDOW", "much");
    world.set("SSM_PLUGIN_LOG_FILE", "/proc/nowhere/log");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_WINDOW=\"much\"");
    assert_check(&report, "log", "warning", "/proc/nowhere/log");
    assert_eq!(finished.status.code(), Some(0));
}

/// A section that matches the environment's profile applies, as in a session of the AWS CLI.
#[test]
fn sections_of_the_settings_file_for_the_profile_of_the_environment() {
    let sim = sim();
    let mut world = world(&sim);
    let directory = world.home().join(".config/session-manager-plugin");
    let url = channel(&sim);
    let absent = "session-manager-plugin/config.toml does not exist";
    assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", absent);
    std::fs::create_dir_all(&directory).expect("the directory of the settings file");
    std::fs::write(directory.join("config.toml"), "[[match]]\nprofile = 'prod-*'\nquiet = true\n")
        .expect("write the settings file");
    assert_check(
        &doctor(&world, &["--url", &url]).1,
        "settings",
        "ok",
        "all settings have their defaults; the settings file /",
    );
    for variable in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] {
        world.set(variable, "prod-eu");
        assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "config.toml: SSM_PLUGIN_QUIET");
        world.set(variable, "");
    }
    let section = "[[match]]\nregion = 'eu-*'\nquiet = true\n";
    std::fs::write(directory.join("config.toml"), section).expect("write the settings file");
    assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "all settings have their defaults");
    world.set("AWS_REGION", "eu-west-1");
    assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "config.toml: SSM_PLUGIN_QUIET");
}

#[test]
fn relaxed_safeguards_are_named() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_LOCAL_HOST", "0.0.0.0");
    world.set("SSM_PLUGIN_RESTART", "1");
    world.set("SSM_PLUGIN_ANY_USER", "1");
    let (_, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_LOCAL_HOST=0.0.0.0: other machines can connect");
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_ANY_USER=1: all users of this machine");
    let relaxed = &check(&report, "settings")["fields"]["relaxed"];
    assert_eq!(
        (&relaxed[0]["name"], &relaxed[0]["value"]),
        (&"SSM_PLUGIN_LOCAL_HOST".into(), &"0.0.0.0".into())
    );
    assert_eq!(report["failures"], 0, "{report:#}");
}
