//! Secrets in output, logs, arguments and environment.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ssm_sim::{Config, Faults, KmsOptions};

use super::{Call, strict, world_without_credentials, write_config};
use crate::harness::PATIENCE;
use crate::harness::net::eventually;
use crate::harness::output::Output;
use crate::harness::process::Running;
use crate::harness::sim::start;
#[cfg(target_os = "linux")]
use crate::harness::{World, limited};

/// Neither `/proc/<pid>/environ` nor a program that is asked for credentials shows it.
#[test]
fn the_response_is_wiped_from_the_environment() {
    let (world, sim) = (world_without_credentials(), super::strict_sim());
    let known = super::known();
    let seen = world.path("seen");
    let json = format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#,
        known.access_key, known.secret_key
    );
    let script = format!(
        "#!/bin/sh\ntr '\\000' '\\n' </proc/$$/environ >{0}.new\nmv {0}.new {0}\necho '{json}'\n",
        seen.display()
    );
    super::write(&world, "keys.sh", &script);
    let line = format!("credential_process = sh {}\n", world.home().join("keys.sh").display());
    write_config(&world, &format!("[profile process]\n{line}"));
    let call = Call::shell(&sim).profile("process");
    let mut command = call.plugin(&world);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("start");
    let stdout = Output::read(child.stdout.take().expect("piped stdout"));
    stdout.wait_for("Starting session");
    let opened = sim.wait_for(PATIENCE, |sessions| sessions[0].agent.messages_down > 0);
    let own = std::fs::read(format!("/proc/{}/environ", child.id())).expect("its environment");
    child.kill().expect("kill");
    child.wait().expect("its end");
    assert!(opened, "not opened with the process's credentials: {:#?}", sim.sessions());
    let passed_on = std::fs::read(&seen).expect("what the credential process saw");
    let token = call.response["TokenValue"].as_str().expect("a token");
    for (whose, environment) in [("the plugin's", own), ("the credential process's", passed_on)] {
        let text = String::from_utf8_lossy(&environment);
        assert!(text.contains("HOME="), "{whose}: {text}");
        for secret in [token, call.id(), "StreamUrl"] {
            assert!(!text.contains(secret), "{whose} environment holds {secret:?}: {text}");
        }
    }
    let text = String::from_utf8_lossy(&std::fs::read(&seen).expect("seen")).into_owned();
    assert!(!text.contains("AWS_SSM_START_SESSION_RESPONSE"), "handed on: {text}");
}

/// A core dump would hold the token and the keys.
#[cfg(target_os = "linux")]
#[test]
fn a_crash_leaves_no_core_dump_unless_the_setting_asks_for_one() {
    let sim = super::strict_sim();
    for (setting, expected) in [(None, "1"), (Some("1"), "unlimited")] {
        let mut world = World::new();
        setting.into_iter().for_each(|value| world.set("SSM_PLUGIN_CORE_DUMPS", value));
        let plugin = Running::spawn(&mut limited(&Call::shell(&sim).plugin(&world), "-S -c unlimited"));
        plugin.stdout.wait_for("Starting session");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", plugin.pid().as_raw_nonzero()));
        let limits = limits.expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit");
        assert_eq!(line.split_whitespace().nth(4), Some(expected), "{line}");
    }
}

/// A whole session at trace level: a temporary role, signed opens, new tokens, a data key, a refusal, an end by API.
#[test]
fn no_log_holds_a_token_or_a_key() {
    let mut world = world_without_credentials();
    let kms = KmsOptions {
        encrypt_shell: Some("alias/ssm".to_owned()),
        challenge: true,
        require_challenge: true,
        ..KmsOptions::default()
    };
    let sim = start(Config { kms, ..strict() });
    for service in ["KMS", "STS", "SSM"] {
        world.set(&format!("AWS_ENDPOINT_URL_{service}"), &sim.endpoint());
    }
    let known = super::known();
    write_config(
        &world,
        &format!(
            "[profile base]\naws_access_key_id = {}\naws_secret_access_key = {}\n\
             [profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n",
            known.access_key, known.secret_key
        ),
    );
    let log = world.path("trace.log");
    // Each crate asked for by name, too: no filter may open what holds secrets.
    let filter = "trace,aws_config=trace,aws_smithy_runtime=trace,aws_smithy_runtime_api=trace,aws_sigv4=trace,\
                  hyper=trace,hyper_util=trace,tungstenite=trace,tokio_tungstenite=trace,rustls=trace,h2=trace";
    world.set("SSM_PLUGIN_LOG", filter);
    world.set("SSM_PLUGIN_LOG_FILE", &log.display().to_string());
    world.set("SSM_PLUGIN_STATUS", "always");
    world.set("LOG_SIGNABLE_BODY", "true");
    let call = Call::shell(&sim).profile("role");
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    plugin.stdout.wait_for("This session is encrypted");
    for round in 0..2 {
        sim.cut(call.id());
        plugin.send(format!("echo a$(({round}+40))z\n"));
        plugin.stdout.wait_for(&format!("a{}z", round + 40));
    }
    sim.set_faults(Faults { cut_every: Some(Duration::from_millis(300)), ..Faults::default() });
    let opens = || sim.session(call.id()).map_or(0, |session| session.opens.len());
    let before = opens();
    eventually("two more cuts", || opens() > before + 1);
    sim.set_faults(Faults::default());
    plugin.send("exit\n");
    let finished = plugin.finish();
    finished.assert_ok();

    let log = std::fs::read(&log).expect("the log");
    assert!(log.len() > 2_000, "the log is empty: {}", String::from_utf8_lossy(&log));
    let secrets = sim.secrets();
    // Three tokens at least, the role's key and token, the data key.
    assert!(secrets.len() >= 6, "{}", secrets.len());
    for secret in secrets {
        let forms = [
            secret.clone(),
            BASE64_STANDARD.encode(&secret).into_bytes(),
            hex::encode(&secret).into_bytes(),
            format!("{secret:?}").into_bytes(),
        ];
        for form in forms {
            for (name, text) in [("log", &log), ("stdout", &finished.stdout), ("stderr", &finished.stderr)] {
                let found = text.windows(form.len()).any(|window| window == form);
                assert!(!found, "{name} holds {}", String::from_utf8_lossy(&form));
            }
        }
    }
}
