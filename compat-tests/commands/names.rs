//! Targets by name, by tag and by computer name.

use ssm_sim::{Config, Instance, PingStatus, Sim};

use super::{plugin, world};
use crate::harness::process::{Finished, run, run_with_input};
use crate::harness::sim::start;
use crate::harness::{TARGET, World};

fn fleet() -> Sim {
    let web = |id: &str| Instance::new(id).named("web");
    start(Config {
        instances: vec![
            Instance::new("i-db").named("db").with_tag("Env", "prod"),
            web("i-web1"),
            web("i-web2").in_state(PingStatus::ConnectionLost),
            Instance { computer_name: "BUILD-7.corp.example".to_owned(), ..Instance::new("mi-build") },
            Instance::new("i-gone").named("gone").in_state(PingStatus::ConnectionLost),
        ],
        ..Config::default()
    })
}

#[track_caller]
fn reaches(sim: &Sim, name: &str, id: &str) {
    run_with_input(&mut plugin(&world(sim), &["shell", name]), b"exit\n").assert_ok();
    let last = sim.sessions().last().map(|session| session.target.clone());
    assert_eq!(last.as_deref(), Some(id), "{name}");
}

#[track_caller]
fn refused(sim: &Sim, world: &World, name: &str) -> Finished {
    let starts = sim.requests().start;
    let finished = run(&mut plugin(world, &["shell", name]));
    assert_eq!((finished.status.code(), finished.text().as_str()), (Some(255), ""), "{}", finished.errors());
    assert_eq!(sim.requests().start, starts, "no session is asked for");
    finished
}

#[test]
fn one_instance_is_found_by_name_tag_and_computer_name() {
    let sim = fleet();
    reaches(&sim, "db", "i-db");
    reaches(&sim, "tag:Env=prod", "i-db");
    reaches(&sim, "build-7", "mi-build");
    reaches(&sim, "build-7.corp.example", "mi-build");
    let before = sim.requests().describe_instances;
    reaches(&sim, TARGET, TARGET);
    assert_eq!(sim.requests().describe_instances, before, "an id needs no look-up");
}

#[test]
fn several_that_match_are_listed() {
    let sim = fleet();
    let errors = refused(&sim, &world(&sim), "web").errors();
    assert!(errors.contains("\"web\" matches 2 instances; use the id of one instance\n"), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(
        lines.len() == 2 && lines[0].contains("i-web1") && lines[1].contains("ConnectionLost"),
        "{errors}"
    );
    assert!(lines.iter().all(|line| line.contains("Amazon Linux")), "{errors}");
}

#[test]
fn when_none_matches_all_are_listed() {
    let sim = fleet();
    let errors = refused(&sim, &world(&sim), "nonesuch").errors();
    assert!(errors.contains("no managed instance matches \"nonesuch\"; managed instances: 6\n"), "{errors}");
    assert_eq!(errors.lines().filter(|line| line.starts_with("  ")).count(), 6, "{errors}");
    let errors = refused(&sim, &world(&sim), "tag:Env=test").errors();
    assert!(errors.contains("no managed instance matches"), "{errors}");
}

#[test]
fn a_look_up_that_is_denied_names_the_permission() {
    let sim = fleet();
    sim.deny("ssm:DescribeInstanceInformation", true);
    let errors = refused(&sim, &world(&sim), "db").errors();
    assert!(errors.contains("allow ssm:DescribeInstanceInformation"), "{errors}");
}

#[test]
fn a_target_that_is_not_connected_is_explained_by_its_state() {
    let sim = fleet();
    for (name, part) in [
        ("gone", "its state is ConnectionLost, last seen 2 hours ago"),
        ("i-elsewhere", "i-elsewhere is not a managed instance of this account and region"),
    ] {
        let finished = run(&mut plugin(&world(&sim), &["shell", name]));
        let errors = finished.errors();
        assert_eq!(finished.status.code(), Some(255));
        assert!(errors.contains("TargetNotConnected: ") && errors.contains(part), "{errors}");
        assert_eq!(errors.matches('\n').count(), 1, "{errors}");
    }
}

#[test]
fn a_tag_without_a_value_is_a_mistake() {
    let sim = fleet();
    let finished = run(&mut plugin(&world(&sim), &["shell", "tag:Env"]));
    assert_eq!(finished.status.code(), Some(2), "{}", finished.errors());
    assert!(finished.errors().contains("tag:KEY=VALUE"), "{}", finished.errors());
}
