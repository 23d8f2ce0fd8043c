//! The AWS CLIs through a proxy to another stream host.

use serde_json::json;
use ssm_sim::Credentials;

use super::*;
use crate::harness::{Aws, TARGET};

/// All at once, through the unchanged CLI: a proxy with a password, a private authority, an interface endpoint, whose
/// name the signature covers.
fn through_the_cli(aws: Aws) {
    let credentials = Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
    };
    let config = Config { credentials: Some(credentials), require_signed_open: true, ..Config::default() };
    let mut site = Site::with(config, |_| SERVICE.to_owned()).trusting();
    let proxy = site.proxy(with_password());
    site.set("HTTPS_PROXY", &format!("http://user:{ENCODED}@127.0.0.1:{}", proxy.port()));
    site.set("SSM_PLUGIN_STREAM_HOST", ENDPOINT);
    let parameters = json!({"portNumber": [site.echo.port().to_string()], "localPortNumber": ["0"]});
    let running = Running::spawn_without_stdin(&mut site.world.aws(
        aws,
        &site.sim.endpoint(),
        &[
            "ssm",
            "start-session",
            "--target",
            TARGET,
            "--document-name",
            "AWS-StartPortForwardingSession",
            "--parameters",
            &parameters.to_string(),
        ],
    ));
    let bytes = random_bytes(3, 50_000);
    assert!(echo_through(opened_port(&running.stdout), &bytes) == bytes, "the echo differs");
    running.signal_group(Signal::INT);
    running.finish().assert_ok();
    assert_asked_for(&proxy, &format!("{ENDPOINT}:443"));
    assert_eq!(site.front.visits()[0].host.as_deref(), Some(ENDPOINT));
    let sessions = site.sim.sessions();
    let signature = sessions[0].opens[0].signature.as_ref().expect("a signed open");
    assert!(signature.verified && signature.service == "ssmmessages", "{signature:?}");
    assert_all_ended(&site.sim);
}

#[test]
fn v1_through_proxy_and_endpoint() {
    through_the_cli(Aws::V1);
}

#[test]
fn v2_through_proxy_and_endpoint() {
    through_the_cli(Aws::V2);
}
