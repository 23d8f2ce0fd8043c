//! Commands of an embedding program.

use std::time::Duration;

use session_manager_plugin::remote_command::{Chunk, CommandBuilder};
use session_manager_plugin::{Command, Error};
use ssm_sim::agent::AgentOptions;
use ssm_sim::{Config, Faults, KmsOptions, SessionReport, Sim};

use super::{block_on, credentials};
use crate::harness::sim::{assert_all_ended, sim, start, unpaced_sim};
use crate::harness::{PATIENCE, REGION, TARGET};

fn command(sim: &Sim, program: &str) -> CommandBuilder {
    Command::builder(TARGET, program).credentials(credentials()).region(REGION).endpoint_url(sim.endpoint())
}

#[test]
fn streams_and_status() {
    let sim = unpaced_sim();
    let script = r#"printf '%s' "$1"; echo err >&2; exit 3"#;
    let output = block_on(command(&sim, "sh").args(["-c", script, "sh", "a b $HOME"]).run()).expect("output");
    assert_eq!((output.status, output.stdout, output.stderr), (3, b"a b $HOME".to_vec(), b"err\n".to_vec()));
    let output = block_on(command(&sim, "no-such-program").run()).expect("output");
    assert_eq!(output.status, 127);
    let output = block_on(command(&sim, "sh").args(["-c", "kill -9 $$"]).run()).expect("output");
    assert_eq!(output.status, -1);
    assert_all_ended(&sim);
}

#[test]
fn output_comes_while_the_command_runs() {
    let (sim, folder) = (unpaced_sim(), tempfile::tempdir().expect("a folder"));
    let script = r#"echo one; while ! [ -e "$1" ]; do sleep 0.05; done; echo two"#;
    let path = folder.path().join("go");
    let words = ["-c", script, "sh", path.to_str().expect("UTF-8")];
    let mut running = command(&sim, "sh").args(words).start().expect("a thread");
    let first = block_on(running.next());
    assert_eq!(first, Some(Chunk::Stdout(b"one\n".as_slice().into())));
    std::fs::write(&path, "").expect("write");
    assert_eq!(block_on(running.next()), Some(Chunk::Stdout(b"two\n".as_slice().into())));
    assert_eq!(block_on(running.wait()), Ok(0));
    let running = command(&sim, "sleep").arg("600").start().expect("a thread");
    let is_ready = |session: &SessionReport| session.down.messages > 1;
    let is_up = sim.wait_for(PATIENCE, |sessions| sessions.get(1).is_some_and(is_ready));
    assert!(is_up, "{:#?}", sim.sessions());
    drop(running);
    assert_all_ended(&sim);
}

/// The agent of a command acknowledges the flag that ends port sessions, and continues.
#[test]
fn a_command_that_is_dropped_in_its_handshake_is_ended() {
    let sim = unpaced_sim();
    sim.set_faults(Faults { delay: Duration::from_millis(100), ..Faults::default() });
    let running = command(&sim, "sleep").arg("600").start().expect("a thread");
    // The answer to the agent's request is out; the agent's completion takes the delay.
    let is_under_way = |sessions: &[SessionReport]| sessions.first().is_some_and(|it| it.up.messages == 1);
    assert!(sim.wait_for(PATIENCE, is_under_way), "{:#?}", sim.sessions());
    drop(running);
    assert_all_ended(&sim);
}

#[test]
fn output_has_a_bound() {
    let sim = unpaced_sim();
    let endless = command(&sim, "sh").args(["-c", "while :; do echo 0123456789; done"]).max_output(10_000);
    assert_eq!(block_on(endless.run()), Err(Error::OutputTooLong(10_000)));
    assert_all_ended(&sim);
}

/// The data key comes from KMS with the program's own credentials.
#[test]
fn an_encrypted_session() {
    let encrypting = |deny| {
        let kms = KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), deny, ..KmsOptions::default() };
        start(Config { kms, ..Config::default() })
    };
    let sim = encrypting(false);
    let output = block_on(command(&sim, "sh").args(["-c", "echo out; exit 7"]).run()).expect("output");
    assert_eq!((output.status, output.stdout.as_slice()), (7, b"out\n".as_slice()));
    assert_eq!(sim.requests().generate_data_key, 1);
    let sim = encrypting(true);
    let error = block_on(command(&sim, "true").run()).expect_err("an error");
    assert!(matches!(&error, Error::Encryption(text) if text.contains("AccessDenied")), "{error:?}");
    assert!(!error.is_retryable());
    assert_all_ended(&sim);
}

#[test]
fn failures_are_typed() {
    let sim = sim();
    sim.deny("ssm:StartSession", true);
    let error = block_on(command(&sim, "true").run()).expect_err("an error");
    assert!(matches!(error, Error::AccessDenied(_)), "{error:?}");
    for builder in [command(&sim, ""), command(&sim, "a\0b"), Command::builder(TARGET, "true")] {
        let error = block_on(builder.run()).expect_err("an error");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    }
}

/// Its output is one file for both streams, and it sends no status.
#[test]
fn an_older_agent() {
    let agent = AgentOptions { version: Some("3.0.1390.0".to_owned()), ..AgentOptions::default() };
    let sim = start(Config { agent, ..Config::default() });
    let output = block_on(command(&sim, "sh").args(["-c", "echo out; echo err >&2; exit 4"]).run());
    let output = output.expect("output");
    assert_eq!((output.status, output.stderr.len()), (4, 0), "{output:?}");
    assert_eq!(output.stdout, b"out\nerr\n");
}
