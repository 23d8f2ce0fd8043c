//! Credentials that are renewed while a session runs, for each kind of source, and what a `credential_process` gets.

use std::io::Write as _;

use ssm_sim::{Config, Sim};

use super::credentials::{SESSION_SHA1, keys, point_at, sso_session_world, write_sso_cache};
use super::{Call, Forward, known, strict, strict_sim, world_without_credentials, write, write_config};
use crate::harness::World;
use crate::harness::net::{Server, echo_through};
use crate::harness::process::Running;
use crate::harness::sim::start;

/// Starts a session, has the service reject its credentials, renews them, and resumes.
#[track_caller]
fn assert_taken_up(world: &World, sim: &Sim, profile: &str, renew: impl FnOnce()) {
    let echo = Server::echo();
    let forward = Forward::start(world, &Call::port(sim, echo.port()).profile(profile));
    assert_eq!(echo_through(forward.port, b"before"), b"before");
    let first = sim.session(&forward.id).expect("the session").opens[0].signature.clone();
    if let Some(signature) = &first {
        sim.revoke(&signature.access_key);
    }
    renew();
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"after"), b"after");
    let opens = sim.session(&forward.id).expect("the session").opens;
    let last = opens.last().and_then(|open| open.signature.clone()).expect("a signature");
    assert!(last.verified && first.is_none_or(|first| first.access_key != last.access_key), "{opens:?}");
    assert!(sim.requests().resume > 0);
}

fn other_keys(sim: &Sim) -> String {
    let other = sim.add_credentials("AKIARENEWEDRENEWED01", "another-secret");
    format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", other.access_key, other.secret_key)
}

/// saml2aws, aws-mfa and gimme-aws-creds rewrite `[default]` in `~/.aws/credentials`.
#[test]
fn renewed_keys_in_each_file_by_name_and_by_default() {
    for (file, profile, header) in [
        (".aws/credentials", "", "[default]"),
        (".aws/credentials", "work", "[work]"),
        (".aws/config", "", "[default]"),
        (".aws/config", "work", "[profile work]"),
    ] {
        let (world, sim) = (world_without_credentials(), strict_sim());
        write(&world, file, &format!("{header}\n{}", keys()));
        let renewed = format!("{header}\n{}", other_keys(&sim));
        assert_taken_up(&world, &sim, profile, || write(&world, file, &renewed));
    }
}

/// Files that the environment names.
#[test]
fn renewed_keys_in_files_of_the_environment() {
    for variable in ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
        let (mut world, sim) = (world_without_credentials(), strict_sim());
        world.set(variable, &world.home().join("elsewhere").display().to_string());
        write(&world, "elsewhere", &format!("[default]\n{}", keys()));
        let renewed = format!("[default]\n{}", other_keys(&sim));
        assert_taken_up(&world, &sim, "", || write(&world, "elsewhere", &renewed));
    }
}

#[test]
fn roles_are_assumed_again_by_name_and_by_default() {
    for profile in ["role", ""] {
        let (mut world, sim) = (world_without_credentials(), strict_sim());
        point_at(&mut world, &sim, &["STS"]);
        if profile.is_empty() {
            world.set("AWS_PROFILE", "role");
        }
        let role = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n";
        write_config(&world, &format!("[profile base]\n{}\n[profile role]\n{role}", keys()));
        assert_taken_up(&world, &sim, profile, || ());
    }
}

#[test]
fn keys_that_come_after_the_start_without_any() {
    let sim = start(Config { require_signed_open: false, ..strict() });
    let world = world_without_credentials();
    assert_taken_up(&world, &sim, "", || {
        write(&world, ".aws/credentials", &format!("[default]\n{}", keys()))
    });
}

#[test]
fn a_token_that_was_renewed_in_the_sso_cache() {
    let sim = strict_sim();
    let mut world = sso_session_world(&sim);
    for profile in ["sso", ""] {
        if profile.is_empty() {
            world.set("AWS_PROFILE", "sso");
        }
        write_sso_cache(&world, SESSION_SHA1, "sim-sso-token", "2999-01-01T00:00:00Z");
        assert_taken_up(&world, &sim, profile, || ());
    }
}

/// A process that reads its input, as a shell script in it may.
fn process(world: &World, access_key: &str, secret_key: &str) -> String {
    let json = format!(r#"{{"Version":1,"AccessKeyId":"{access_key}","SecretAccessKey":"{secret_key}"}}"#);
    write(world, "keys.sh", &format!("cat >>\"$HOME/taken\"\necho '{json}'\n"));
    format!("credential_process = sh \"{}\"\n", world.home().join("keys.sh").display())
}

#[test]
fn a_process_with_other_keys_by_name_and_by_default() {
    for (profile, header) in [("", "[default]"), ("work", "[profile work]")] {
        let (world, sim) = (world_without_credentials(), strict_sim());
        let line = process(&world, &known().access_key, &known().secret_key);
        write_config(&world, &format!("{header}\n{line}"));
        sim.add_credentials("AKIARENEWEDRENEWED01", "another-secret");
        assert_taken_up(&world, &sim, profile, || {
            process(&world, "AKIARENEWEDRENEWED01", "another-secret");
        });
    }
}

/// In an SSH session stdin carries the connection: after a resume the process took its bytes.
#[test]
fn a_process_takes_none_of_the_session_s_input() {
    let (world, sim) = (world_without_credentials(), strict_sim());
    let line = process(&world, &known().access_key, &known().secret_key);
    write_config(&world, &format!("[default]\n{line}"));
    let call = Call::shell(&sim);
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    plugin.send("echo a$((40+2))z\n");
    plugin.stdout.wait_for("a42z");
    let mut stdin = plugin.take_stdin();
    sim.cut(call.id());
    for number in 0..50 {
        stdin.write_all(format!("echo b$(({number}+100))z\n").as_bytes()).expect("write");
    }
    plugin.stdout.wait_for("b149z");
    assert!(sim.requests().resume > 0);
    assert_eq!(std::fs::read_to_string(world.home().join("taken")).expect("it ran"), "");
}
