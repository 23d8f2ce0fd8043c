//! The signature of the websocket's opening request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use ssm_sim::{Config, DEFAULT_TARGET, SignatureReport, Sim};

use super::{Call, Forward, known, strict, strict_sim, world_without_credentials, write, write_config};
use crate::harness::net::{Server, echo_through};
use crate::harness::process::Running;
use crate::harness::pty::Pty;
use crate::harness::sim::{sim, start};
use crate::harness::{REGION, World, named_pipe};

fn first_signature(sim: &Sim, id: &str) -> Option<SignatureReport> {
    sim.session(id).expect("the session").opens.first().expect("an open").signature.clone()
}

#[test]
fn open_is_signed_for_the_message_gateway() {
    let (world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(echo_through(forward.port, b"signed"), b"signed");
    let signature = first_signature(&sim, &forward.id).expect("a signature");
    assert_eq!((signature.service.as_str(), signature.region.as_str()), ("ssmmessages", REGION));
    assert!(signature.verified && !signature.session_token, "{signature:?}");
}

/// Reading the system's certificates, once for each kind of credentials, was a third of the time to an open port.
#[test]
fn certificates_are_read_only_for_tls() {
    let (mut world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    // Opening it blocks forever.
    let certificates = world.home().join("certificates.pem");
    named_pipe(&certificates);
    world.set("SSL_CERT_FILE", certificates.to_str().expect("a path"));
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    let signature = first_signature(&sim, &forward.id).expect("a signature");
    assert!(signature.verified, "{signature:?}");
}

#[test]
fn region_is_that_of_the_arguments() {
    let (world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    let call = Call { region: "eu-central-1".to_owned(), ..Call::port(&sim, echo.port()) };
    let forward = Forward::start(&world, &call);
    let signature = first_signature(&sim, &forward.id).expect("a signature");
    assert!(signature.verified && signature.region == "eu-central-1", "{signature:?}");
}

#[test]
fn session_token_goes_with_the_signature() {
    let (mut world, sim, echo) = (World::new(), strict_sim(), Server::echo());
    world.set("AWS_SESSION_TOKEN", "a-session-token");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    let signature = first_signature(&sim, &forward.id).expect("a signature");
    assert!(signature.verified && signature.session_token, "{signature:?}");
}

#[test]
fn skipping_the_configuration_opens_unsigned() {
    let (mut world, sim, echo) = (World::new(), sim(), Server::echo());
    world.set("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "true");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(first_signature(&sim, &forward.id), None);
    // Later ones, and the calls between, have their credentials.
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"resumed"), b"resumed");
    assert!(sim.requests().resume > 0);
    let opens = sim.session(&forward.id).expect("the session").opens;
    assert!(opens.last().is_some_and(|open| open.signature.is_some()), "{opens:?}");
}

#[test]
fn skipping_the_configuration_ends_the_session_at_the_service() {
    let (mut world, sim) = (World::new(), sim());
    world.set("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "true");
    let call = Call::shell(&sim);
    let mut plugin = Running::spawn(&mut call.plugin(&world));
    plugin.send("echo a$((40+2))z\n");
    plugin.stdout.wait_for("a42z");
    plugin.signal(Signal::TERM);
    plugin.finish().assert_ok();
    assert!(sim.terminated(call.id()));
}

/// The names of federated users, and so the ids of their sessions, are addresses: `@` stands in the path as it is, and
/// as `%40` in what is signed.
#[test]
fn a_session_id_with_an_at_sign_is_signed() {
    let (world, echo) = (World::new(), Server::echo());
    let sim = start(Config { user: "alice@example.com".to_owned(), ..strict() });
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert!(forward.id.starts_with("alice@example.com-"), "{}", forward.id);
    assert_eq!(echo_through(forward.port, b"signed"), b"signed");
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"again"), b"again");
    let opens = sim.session(&forward.id).expect("the session").opens;
    assert!(
        opens.len() > 1 && opens.iter().all(|o| o.signature.as_ref().is_some_and(|s| s.verified)),
        "{opens:?}"
    );
}

#[test]
fn presigned_url_is_opened_as_it_is_and_not_resumed() {
    let (world, sim, echo) = (World::new(), sim(), Server::echo());
    let mut call = Call::port(&sim, echo.port());
    let url = call.response["StreamUrl"].as_str().expect("a URL").to_owned();
    call.response["StreamUrl"] = format!("{url}&X-Amz-Signature=0123").into();
    let forward = Forward::start(&world, &call);
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"again"), b"again");
    let report = sim.session(&forward.id).expect("the session");
    assert!(
        report.opens.len() > 1 && report.opens.iter().all(|open| open.signature.is_none()),
        "{report:#?}"
    );
    assert_eq!(sim.requests().resume, 0);
}

#[test]
fn without_credentials_it_opens_unsigned_and_soon() {
    let (mut world, sim, echo) = (world_without_credentials(), sim(), Server::echo());
    // A metadata service that takes connections and says nothing, as some networks make it look.
    let silent = Server::start(|stream| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    world.set("AWS_EC2_METADATA_DISABLED", "false");
    world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("http://127.0.0.1:{}", silent.port()));
    let call = Call::port(&sim, echo.port());
    let begin = Instant::now();
    let forward = Forward::start(&world, &call);
    // One second for the metadata service, and the rest of the start.
    assert!(begin.elapsed() < Duration::from_secs(6), "took {:?}", begin.elapsed());
    assert_eq!(first_signature(&sim, &forward.id), None);
}

#[test]
fn refusal_for_a_missing_signature_is_reported() {
    let world = world_without_credentials();
    let sim = start(Config { require_signed_open: true, ..Config::default() });
    let finished = Call::shell(&sim).spawn(&world).finish();
    finished.assert_ok();
    let text = finished.text();
    assert!(
        text.contains(
            "Cannot perform start session: 127.0.0.1 refused the connection with status 403: the request is not \
             signed; the request was not signed: signing the connection failed: no AWS credentials were found\n"
        ),
        "{text}"
    );
}

/// The 403 of a key that does not exist, with a wrong secret, or of another account: the text names the reason and the
/// command that checks the credentials.
#[test]
fn refused_credentials_are_explained() {
    for (key, secret, reason) in [
        ("AKIAMADEUPMADEUPMADE", "made-up", "InvalidClientTokenId: The security token is invalid."),
        ("AKIAIOSFODNN7EXAMPLE", "made-up", "SignatureDoesNotMatch: The signature does not match."),
        (
            "AKIAIOSFODNN7EXAMPLE",
            &known().secret_key,
            "the request was signed by arn:aws:iam::123456789012:user/sim",
        ),
    ] {
        let sim = start(strict());
        let gateway = Server::start(|mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        });
        let mut world = World::new();
        world.set("AWS_ACCESS_KEY_ID", "");
        world.set("AWS_SECRET_ACCESS_KEY", "");
        write(
            &world,
            ".aws/credentials",
            &format!("[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"),
        );
        world.set("AWS_ENDPOINT_URL_STS", &sim.endpoint());
        let mut call = Call::shell(&sim).profile("work");
        let url = format!("ws://127.0.0.1:{}/v1/data-channel/x?role=publish_subscribe", gateway.port());
        call.response["StreamUrl"] = url.into();
        let text = call.spawn(&world).finish().text();
        assert!(text.contains("127.0.0.1 refused the connection with status 403; "), "{text}");
        assert!(text.contains(reason), "{text}");
        let command = "`aws sts get-caller-identity --profile work`";
        let endings = [
            format!("run {command} to check the credentials\n"),
            format!("({command} shows the current one)\n"),
        ];
        assert_eq!(endings.iter().filter(|ending| text.contains(*ending)).count(), 1, "{text}");
        assert!(!text.contains("made-up"), "{text}");
    }
}

#[test]
fn the_reason_in_a_refusal_is_printed() {
    let gateway = Server::start(|mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 4096]);
        let body = r#"{"message":"The request signature we calculated does not match"}"#;
        let head = "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: InvalidSignatureException:http://x/\r\n";
        let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    });
    let sim = sim();
    let mut call = Call::shell(&sim);
    let url = format!("ws://127.0.0.1:{}/v1/data-channel/x?role=publish_subscribe", gateway.port());
    call.response["StreamUrl"] = url.into();
    let text = call.spawn(&World::new()).finish().text();
    assert!(
        text.contains(
            "127.0.0.1 refused the connection with status 403: InvalidSignatureException: The request signature we \
             calculated does not match; the request was signed with the access key AKIA...MPLE; run `aws sts get-caller-identity` to check the credentials\n"
        ),
        "{text}"
    );
}

/// Other credentials would change nothing.
#[test]
fn a_stale_stream_url_is_no_matter_of_credentials() {
    for world in [World::new(), world_without_credentials()] {
        let sim = sim();
        let mut call = Call::shell(&sim);
        let url =
            call.response["StreamUrl"].as_str().expect("a URL").replace("cell-number=", "cell-number=old");
        call.response["StreamUrl"] = url.into();
        let text = call.spawn(&world).finish().text();
        let advice = "refused the connection with status 403: this stream URL is not valid any more; start a new session: \
                      this one may have been resumed elsewhere\n";
        assert!(text.contains(advice), "{text}");
    }
}

/// A failure ends with the command that investigates it, at a terminal only.
#[test]
fn a_failure_at_a_terminal_names_the_command_that_investigates_it() {
    let sim = start(Config { require_signed_open: true, ..Config::default() });
    let world = world_without_credentials();
    write_config(&world, "[profile 'two words']\nregion = us-east-1\n");
    let command = Call::shell(&sim).profile("two words").plugin(&world);
    let mut pty = Pty::spawn(&command);
    pty.finish();
    let screen = String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned();
    let line = format!(
        "session-manager-plugin: to find the cause, run: session-manager-plugin doctor --profile 'two words' --region {REGION} --target \
         {DEFAULT_TARGET}"
    );
    assert!(screen.contains(&line), "{screen}");
    let finished = Call::shell(&sim).spawn(&world).finish();
    assert!(!finished.errors().contains("doctor"), "{}", finished.errors());
}
