//! Settings of AWS with values that mean nothing: the session runs, signed or not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssm_sim::Sim;

use super::{Call, strict_sim, world_without_credentials};
use crate::harness::World;
use crate::harness::process::{Finished, run};
use crate::harness::sim::sim;

/// Values that a setting may hold by mistake.
const VALUES: [&[u8]; 4] = [b"\xc2\xa7 nonsense:[", b"", b"   ", b"not \xff\xfe UTF-8"];

#[test]
fn senseless_variables_cost_no_session() {
    assert_all_run(names(0), |sim, name, value| {
        let mut world = world_on_an_instance(sim);
        world.unset(&[name]);
        let mut plugin = Call::command(sim, "echo it runs").plugin(&world);
        run(plugin.env(name, OsStr::from_bytes(value)))
    });
}

#[test]
fn senseless_keys_of_a_profile_cost_no_session() {
    assert_all_run(names(1), |sim, key, value| {
        let world = world_on_an_instance(sim);
        let text = [profile(key).as_bytes(), key.as_bytes(), b" = ", value, b"\n"].concat();
        super::write_bytes(&world, ".aws/config", &text);
        run(&mut Call::command(sim, "echo it runs").profile("other").plugin(&world))
    });
}

/// The AWS CLI 1 has `legacy` as its own default; Go takes 0 for "without end".
#[test]
fn retry_settings_of_other_clients_do_not_cost_the_signature() {
    let sim = strict_sim();
    for (name, value) in [
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_RETRY_MODE", "adaptive"),
        ("AWS_MAX_ATTEMPTS", "0"),
        ("AWS_MAX_ATTEMPTS", " 5"),
        ("AWS_MAX_ATTEMPTS", ""),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_RETRY_MODE", "sometimes"),
    ] {
        let mut world = World::new();
        world.set(name, value);
        world.set("SSM_PLUGIN_STATUS", "always");
        let finished = run(&mut Call::command(&sim, "echo it runs").plugin(&world));
        finished.assert_ok();
        assert!(finished.text().contains("it runs"), "{name}={value:?}: {}", finished.text());
        let warnings = finished.errors().lines().filter(|line| line.contains(name)).count();
        assert_eq!(warnings, usize::from(matches!(value, "many" | "sometimes")), "{}", finished.errors());
    }
    let world = World::new();
    super::write_config(&world, "[default]\nretry_mode = legacy\nmax_attempts = 0\n");
    let finished = run(&mut Call::command(&sim, "echo it runs").plugin(&world));
    assert!(finished.assert_ok().text().contains("it runs"));
}

#[test]
fn doctor_names_retry_settings_that_cannot_be_used() {
    let sim = sim();
    let doctor = |value: &str| {
        let mut world = World::new();
        world.set("AWS_ENDPOINT_URL", &sim.endpoint());
        world.set("AWS_MAX_ATTEMPTS", value);
        let url = format!("ws://127.0.0.1:{}/v1/data-channel/doctor?role=publish_subscribe", sim.port());
        run(world.plugin().args(["doctor", "--url", &url])).text()
    };
    let text = doctor("many");
    assert!(text.contains("AWS_MAX_ATTEMPTS must be a number; using the default"), "{text}");
    let text = doctor("0");
    assert!(text.contains("AKIA...MPLE") && !text.contains("AWS_MAX_ATTEMPTS"), "{text}");
}

/// A profile that the key completes: together with the keys that make the SDK look at it.
fn profile(key: &str) -> String {
    let beside = match key {
        "role_arn" | "credential_process" => "",
        "source_profile" | "credential_source" => ROLE,
        "mfa_serial" | "external_id" | "duration_seconds" | "role_session_name" => ROLE_OF_BASE,
        "web_identity_token_file" => ROLE,
        "sso_session" => "sso_account_id = 123456789012\nsso_role_name = role\n",
        "sso_account_id" => "sso_session = corp\nsso_role_name = role\n",
        "sso_role_name" => "sso_session = corp\nsso_account_id = 123456789012\n",
        _ if key.starts_with("sso_") => "sso_account_id = 123456789012\nsso_role_name = role\n",
        "aws_access_key_id" => "aws_secret_access_key = secret\n",
        "aws_secret_access_key" => "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
        _ => "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = secret\n",
    };
    format!("{OTHERS}[profile other]\n{beside}")
}

const OTHERS: &str = "[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://sim.awsapps.com/start\n\
    [profile base]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = secret\n";
const ROLE: &str = "role_arn = arn:aws:iam::123456789012:role/r\n";
const ROLE_OF_BASE: &str = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n";

/// Names of settings from the list: of variables in column 0, of profile keys in column 1.
fn names(column: usize) -> Vec<&'static str> {
    let lines = include_str!("setting_names.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(' ').nth(column)).filter(|name| *name != "-").collect()
}

/// Without keys in the environment, so that all other sources of credentials are looked at.
fn world_on_an_instance(sim: &Sim) -> World {
    let mut world = world_without_credentials();
    world.set("AWS_EC2_METADATA_DISABLED", "false");
    for name in ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO"] {
        world.set(name, &sim.endpoint());
    }
    world
}

/// Runs a session for each name and value, a few at a time.
#[track_caller]
fn assert_all_run(names: Vec<&'static str>, session: impl Fn(&Sim, &str, &[u8]) -> Finished + Sync) {
    assert!(names.len() > 50, "the list is not read: {names:?}");
    let cases: Vec<_> = names.iter().flat_map(|name| VALUES.map(|value| (*name, value))).collect();
    let (sim, next, failed) = (sim(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((name, value)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let finished = session(&sim, name, value);
                    let (text, errors) = (finished.text(), finished.errors());
                    if !finished.status.success() || !text.contains("it runs") || errors.contains("panicked")
                    {
                        let value = String::from_utf8_lossy(value);
                        let case = format!("{name}={value:?}: {}\n{text}{errors}", finished.status);
                        failed.lock().expect("a thread").push(case);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("a thread");
    assert!(failed.is_empty(), "{} of {} sessions failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

const AT_A_TIME: usize = 4;
