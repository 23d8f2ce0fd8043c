//! Ends of a port: its session's, its own, and starts that fail.

use std::net::TcpListener;

use session_manager_plugin::forward::{Event, ForwardBuilder};
use session_manager_plugin::{Error, Forward};
use ssm_sim::SessionState;
use ssm_sim::agent::Generation;

use super::{await_event, block_on, builder, credentials, with_port};
use crate::harness::net::{Server, connect, echo_through};
use crate::harness::sim::{assert_all_ended, sim, sim_with_agent};
use crate::harness::{PATIENCE, REGION, TARGET};

#[test]
fn a_port_outlives_its_session_with_restart() {
    let (sim, echo) = (sim(), Server::echo());
    with_port(builder(&sim, echo.port()).restart(true), |forward, port| {
        let mut events = forward.events();
        assert_eq!(echo_through(port, b"one"), b"one");
        let id = sim.sessions()[0].id.clone();
        sim.close_session(&id, "idle");
        let ended = await_event(&mut events, |event| matches!(event, Event::SessionEnded { .. }));
        assert!(
            matches!(&ended, Event::SessionEnded { session, reason, .. } if *session == id && reason == "idle")
        );
        assert_eq!(echo_through(port, b"two"), b"two");
        assert_eq!(sim.requests().start, 2);
        await_event(
            &mut events,
            |event| matches!(event, Event::SessionStarted { session, .. } if *session != id),
        );
    });
    assert_all_ended(&sim);
}

#[test]
fn a_port_without_restart_ends_with_its_session() {
    let (sim, echo) = (sim(), Server::echo());
    let forward = block_on(builder(&sim, echo.port()).start()).expect("a port");
    sim.close_session(&sim.sessions()[0].id, "idle");
    let error = block_on(forward.closed());
    assert_eq!(error, Error::SessionEnded("idle".to_owned()));
    assert!(error.is_retryable());
    assert_eq!(block_on(forward.connect()).expect_err("closed"), error);
    let mut events = forward.events();
    block_on(async { while events.next().await.is_some() {} });
    block_on(forward.shutdown());
    assert_eq!(sim.requests().start, 1);
}

#[test]
fn shutdown_ends_the_session_before_it_returns() {
    let (sim, echo) = (sim(), Server::echo());
    let forward = block_on(builder(&sim, echo.port()).listen("127.0.0.1:0").start()).expect("a port");
    let address = forward.local_addr().expect("an address");
    let mut client = connect(address.port());
    std::io::Write::write_all(&mut client, b"x").expect("write");
    block_on(forward.shutdown());
    assert_eq!(sim.sessions()[0].state, SessionState::Ended);
    assert!(std::net::TcpStream::connect(address).is_err(), "the listener is gone");
    let read = std::io::Read::read_to_end(&mut client, &mut Vec::new());
    assert!(matches!(read, Ok(0 | 1) | Err(_)), "{read:?}");
}

#[test]
fn dropping_a_port_or_its_start_ends_the_session() {
    let (sim, echo) = (sim(), Server::echo());
    drop(block_on(builder(&sim, echo.port()).start()).expect("a port"));
    assert_all_ended(&sim);
    let before = sim.requests().start;
    block_on(async {
        tokio::select! {
            started = builder(&sim, echo.port()).start() => drop(started),
            () = async { while sim.requests().start == before { tokio::task::yield_now().await } } => {}
        }
    });
    assert!(sim.wait_for(PATIENCE, |sessions| sessions.len() == 2), "{:?}", sim.sessions());
    assert_all_ended(&sim);
}

#[test]
fn starts_that_fail_have_typed_errors() {
    let sim = sim();
    let start = |builder: ForwardBuilder| block_on(builder.start()).expect_err("an error");
    for (kind, is_retryable) in [
        ("AccessDeniedException", false),
        ("TargetNotConnected", true),
        ("ThrottlingException", true),
        ("ExpiredTokenException", false),
        ("InvalidDocument", false),
    ] {
        sim.refuse_starts(Some(kind));
        let error = start(builder(&sim, 1));
        let is_expected = match &error {
            Error::AccessDenied(_) => kind == "AccessDeniedException",
            Error::TargetNotConnected(_) => kind == "TargetNotConnected",
            Error::Throttled(_) => kind == "ThrottlingException",
            Error::Credentials(_) => kind == "ExpiredTokenException",
            Error::Service(_) => kind == "InvalidDocument",
            _ => false,
        };
        assert!(is_expected, "{kind}: {error:?}");
        assert_eq!(error.is_retryable(), is_retryable, "{kind}");
        assert!(error.to_string().starts_with("ssm:StartSession failed: "), "{error}");
        assert!(!format!("{error:?}").contains("secret"));
    }
    sim.refuse_starts(None);
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let error = start(builder(&sim, 1).listen(taken.local_addr().expect("an address")));
    assert!(matches!(error, Error::PortInUse(_)) && !error.is_retryable(), "{error:?}");
    assert_eq!(error.to_string().split(": ").last(), Some("address already in use"));
    assert_eq!(sim.sessions().len(), 0, "no session without a listener");
    let nowhere = builder(&sim, 1).endpoint_url("http://127.0.0.1:1");
    let error = start(nowhere);
    assert!(matches!(error, Error::Unreachable(_)) && error.is_retryable(), "{error:?}");
    let old = sim_with_agent(Generation::V3_0);
    let error = start(builder(&old, 1));
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    assert_all_ended(&old);
}

/// A session that fails later is an event, and the port tries again.
#[test]
fn a_restart_that_is_refused_is_an_event() {
    let (sim, echo) = (sim(), Server::echo());
    with_port(builder(&sim, echo.port()).restart(true), |forward, port| {
        let mut events = forward.events();
        sim.refuse_starts(Some("AccessDeniedException"));
        sim.close_session(&sim.sessions()[0].id, "idle");
        await_event(&mut events, |event| matches!(event, Event::SessionEnded { .. }));
        let mut client = connect(port);
        std::io::Write::write_all(&mut client, b"x").expect("write");
        let failed = await_event(
            &mut events,
            |event| matches!(event, Event::Failure { text, .. } | Event::Message { text, .. } if text.contains("AccessDenied")),
        );
        drop(failed);
    });
}

/// Neither the environment nor the files of the user of these tests name credentials.
#[test]
fn nothing_is_taken_from_the_environment_unless_requested() {
    let sim = sim();
    let shown = format!("{:?}", Forward::builder(TARGET).credentials(credentials()));
    assert!(!shown.contains("\"secret\""), "{shown}");
    let builder = || Forward::builder(TARGET).endpoint_url(sim.endpoint()).to("localhost", 1);
    for builder in [
        builder(),
        builder().region(REGION),
        builder().credentials(credentials()),
        Forward::builder("").credentials(credentials()).region(REGION).to("localhost", 1),
        Forward::builder(TARGET).credentials(credentials()).region(REGION),
        builder().credentials(credentials()).region(REGION).to("db", 0),
        builder().credentials(credentials()).region(REGION).listen("nowhere"),
        builder().credentials(credentials()).region(REGION).sessions(0),
    ] {
        let error = block_on(builder.start()).expect_err("an error");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    }
    assert_eq!(sim.requests().start, 0);
}

/// The next test again, in an environment that would fail each call.
#[test]
fn the_environment_and_its_files_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    std::fs::write(&config, "[default]\nregion = eu-west-9\nuse_fips_endpoint = true\n[broken\n")
        .expect("write");
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "library::ends::sessions_are_signed_with_the_programs_credentials"]);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIAOTHER"),
        ("AWS_SECRET_ACCESS_KEY", "other"),
        ("AWS_PROFILE", "missing"),
        ("AWS_REGION", "eu-west-9"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1"),
        ("AWS_CA_BUNDLE", "/nowhere"),
        ("AWS_MAX_ATTEMPTS", "x"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("SSM_PLUGIN_STREAM_HOST", "nowhere.invalid"),
        ("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "1"),
    ] {
        command.env(name, value);
    }
    command.env("AWS_CONFIG_FILE", &config).env("AWS_SHARED_CREDENTIALS_FILE", &config);
    let finished = command.output().expect("the test");
    let text = String::from_utf8_lossy(&finished.stdout);
    assert!(finished.status.success() && text.contains("1 passed"), "{text}");
}

/// The websocket is signed with the program's own credentials.
#[test]
fn sessions_are_signed_with_the_programs_credentials() {
    let (sim, echo) = (sim(), Server::echo());
    with_port(builder(&sim, echo.port()), |_, port| {
        assert_eq!(echo_through(port, b"x"), b"x");
    });
    let signature = sim.sessions()[0].opens[0].signature.clone().expect("a signature");
    assert_eq!((signature.access_key.as_str(), signature.region.as_str()), ("AKIAIOSFODNN7EXAMPLE", REGION));
    assert!(sim.wait_for(PATIENCE, |sessions| sessions[0].state == SessionState::Ended));
}
