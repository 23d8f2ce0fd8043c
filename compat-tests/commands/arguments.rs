//! Arguments: what is understood, and one line for what is not.

use super::{plugin, world};
use crate::harness::process::run;
use crate::harness::sim::sim;
use crate::harness::{TARGET, World};

/// Sections of the settings file are matched with the profile and the region that a command uses, from wherever they come.
#[test]
fn sections_match_the_profile_and_the_region_in_effect() {
    let mut world = World::new();
    let (settings, aws) = (world.home().join(".config/session-manager-plugin"), world.home().join(".aws"));
    std::fs::create_dir_all(&settings).expect("folder");
    std::fs::create_dir(&aws).expect("folder");
    let file = "[[match]]\nregion = 'eu-*'\nstatus = 'json'\n[[match]]\nprofile = 'prod-*'\nstatus = 'json'\n\
                [tunnels.eu]\ntarget = 'i-1'\nregion = 'eu-west-1'\nforwards = ['x']\n\
                [tunnels.us]\ntarget = 'i-1'\nregion = 'us-east-1'\nforwards = ['x']\n\
                [tunnels.prod]\ntarget = 'i-1'\nprofile = 'prod-us'\nforwards = ['x']\n";
    std::fs::write(settings.join("config.toml"), file).expect("settings");
    let profiles = "[profile work]\nregion = eu-north-1\n[profile prod-us]\nregion = us-west-2\n";
    std::fs::write(aws.join("config"), profiles).expect("profiles");
    // A mistake that is found before any call, reported in the form that the settings ask for.
    let is_json = |world: &World, words: &[&str]| {
        let finished = run(world.plugin().arg("forward").args(words));
        assert_eq!(finished.status.code(), Some(2), "{}", finished.errors());
        finished.errors().starts_with('{')
    };
    world.set("AWS_REGION", "");
    world.set("AWS_DEFAULT_REGION", "");
    assert!(!is_json(&world, &["i-1", "x"]), "no region");
    assert!(is_json(&world, &["i-1", "x", "--region", "eu-west-1"]));
    assert!(is_json(&world, &["i-1", "x", "--profile", "work"]), "the profile's region");
    assert!(!is_json(&world, &["i-1", "x", "--profile", "work", "--region", "us-east-1"]));
    assert!(is_json(&world, &["eu"]), "the tunnel's region");
    assert!(is_json(&world, &["prod"]), "the tunnel's profile");
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        world.set(variable, "eu-central-1");
        assert!(is_json(&world, &["i-1", "x"]), "{variable}");
        assert!(!is_json(&world, &["us"]), "{variable}");
        world.set(variable, "");
    }
}

#[test]
fn a_missing_region_is_reported_before_any_call() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("AWS_REGION", "");
    world.set("AWS_DEFAULT_REGION", "");
    for words in
        [&["shell", TARGET][..], &["run", TARGET, "--", "true"], &["forward", "--eager", TARGET, "0:80"]]
    {
        let finished = run(world.plugin().args(words));
        assert_eq!(finished.status.code(), Some(255), "{words:?}");
        let text = "no region is set; use --region, set AWS_REGION, or set region in ~/.aws/config\n";
        assert!(finished.errors().ends_with(text), "{}", finished.errors());
    }
    assert_eq!(sim.requests().start, 0);
}

/// Each is one line that shows the intended form, with status 2, and no session is started.
#[test]
fn each_mistake_is_one_line_and_starts_no_session() {
    let sim = sim();
    let world = world(&sim);
    for words in [
        &["ssh"][..],
        &["ssh", ""],
        &["ssh", "i-1", "port"],
        &["ssh", "i-1", "0"],
        &["ssh", "i-1", "65536"],
        &["ssh", "i-1", "22", "23"],
        &["ssh", "i-1", "--profil", "x"],
        &["ssh", "i-1", "--endpoint-url", "nonsense"],
        &["ssh", "i-1", "--wait=soon"],
        &["ssh", "i-1", "--identity-agent", ""],
        &["shell"],
        &["shell", "i-1", "i-2"],
        &["shell", "i-1", "--region"],
        &["shell", "i-1", "--parameters", "x"],
        &["shell", "i-1", "--parameters", "{"],
        &["shell", "i-1", "--parameters", "{\"portNumber\":80}"],
        &["run"],
        &["run", "i-1"],
        &["run", "i-1", "--"],
        &["run", "i-1", "uptime"],
        &["start-session"],
        &["start-session", "i-1"],
        &["start-session", "--target", "i-1", "--parameters", "x=[1"],
        &["completions"],
        &["completions", "tcsh"],
        &["help", "nonsense"],
    ] {
        let finished = run(&mut plugin(&world, words));
        let errors = finished.errors();
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {errors}");
        assert_eq!(finished.text(), "", "{words:?}");
        assert_eq!(errors.matches('\n').count(), 1, "{words:?}: {errors}");
        assert!(errors.starts_with("session-manager-plugin"), "{words:?}: {errors}");
        let has_form =
            ["usage: ", "such as ", "name=value", "see: "].iter().any(|form| errors.contains(form));
        assert!(has_form && !errors.contains("For more information"), "{words:?}: {errors}");
    }
    assert_eq!(sim.requests().start, 0);
}

/// Before a port is opened or a session is started.
#[test]
fn a_profile_that_does_not_exist_is_one_line() {
    let sim = sim();
    let mut world = world(&sim);
    std::fs::create_dir(world.home().join(".aws")).expect("folder");
    std::fs::write(world.home().join(".aws/config"), "[profile work]\n[profile other]\n").expect("config");
    for words in [
        &["forward", TARGET, "0:80", "--profile", "nope"][..],
        &["shell", TARGET, "--profile", "nope"],
        &["ssh", "web", "--profile", "nope"],
        &["run", TARGET, "--profile", "nope", "--", "true"],
        &["start-session", "--target", TARGET, "--profile", "nope"],
    ] {
        let finished = run(&mut plugin(&world, words));
        let line = format!(
            "session-manager-plugin: {}: profile \"nope\" does not exist; available profiles: other, work\n",
            words[0]
        );
        assert_eq!(finished.errors(), line);
        assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), ""), "{words:?}");
    }
    world.set("AWS_PROFILE", "nope");
    let errors = run(&mut plugin(&world, &["shell", TARGET])).errors();
    assert!(errors.contains("shell: profile \"nope\" does not exist; "), "{errors}");
    assert_eq!(sim.requests().start, 0);
}

#[test]
fn help_version_and_completion_go_to_stdout() {
    for (words, part) in [
        (&["help"][..], "start-session"),
        (&["help"], "\n  doctor "),
        (&["help", "doctor"], "session-manager-plugin doctor [OPTION]..."),
        (&["help", "forward"], "[tunnels.NAME]"),
        (&["help", "ssh"], "ProxyCommand session-manager-plugin ssh %h %p"),
        (&["ssh", "--help"], "ProxyCommand session-manager-plugin ssh %h %p"),
        (&["run", "-h"], "-- COMMAND"),
        (&["-V"], "compatible with 1."),
        (&["completions", "bash"], "complete -F"),
    ] {
        let finished = run(&mut plugin(&World::new(), words));
        finished.assert_ok();
        assert!(finished.text().contains(part), "{words:?}: {}", finished.text());
        assert_eq!(finished.errors(), "", "{words:?}");
    }
}

/// bash itself reads the script and completes with it.
#[test]
fn bash_completes_commands_and_options() {
    let world = World::new();
    let script = r#"
        source <(session-manager-plugin completions bash)
        complete() { :; }
        COMP_WORDS=(session-manager-plugin start); COMP_CWORD=1
        _session__manager__plugin session-manager-plugin start session-manager-plugin
        printf '%s\n' "${COMPREPLY[@]}"
        COMP_WORDS=(session-manager-plugin ssh --reg); COMP_CWORD=2
        _session__manager__plugin session-manager-plugin --reg ssh
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = world.command("/bin/bash");
    let finished = run(bash.args(["-c", script]));
    finished.assert_ok();
    assert_eq!(finished.text(), "start-session\n--region\n", "{}", finished.errors());
}
