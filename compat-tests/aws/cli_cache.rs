//! Credentials that the unchanged AWS CLIs have left in their cache, after their own calls to the simulator's STS and SSO.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use ssm_sim::{Config, KmsOptions, Proxy, ProxyOptions, Sim, TlsFront};

use super::credentials::{
    SESSION_SHA1, assert_temporary, keys, point_at, signer_alone, sso_session_world, write_sso_cache,
};
use super::{Call, Forward, strict, world_without_credentials, write_config};
use crate::harness::net::{Server, echo_through};
use crate::harness::process::{Running, run};
use crate::harness::pty::Pty;
use crate::harness::sim::start;
use crate::harness::{Aws, World};

const ROLE: &str = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n";
/// STS refuses it without a code.
const MFA_ROLE: &str = "role_arn = arn:aws:iam::123456789012:role/mfa\nsource_profile = base\n\
    mfa_serial = arn:aws:iam::123456789012:mfa/me\n";
const CODE: &str = "123456\r";

/// A home with the profiles `base` (keys) and `work` (these lines).
fn home(sim: &Sim, work: &str) -> World {
    let mut world = world_without_credentials();
    point_at(&mut world, sim, &["STS"]);
    write_config(&world, &format!("[profile base]\n{}\n[profile work]\n{work}", keys()));
    world
}

/// AWS behind TLS and a proxy that finds it under any name: the AWS CLI 2.9 does not read `AWS_ENDPOINT_URL_STS`.
struct Cloud {
    sim: Sim,
    front: TlsFront,
    proxy: Proxy,
}

impl Cloud {
    fn start(config: Config) -> Cloud {
        let sim = start(config);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, sim.port()));
        let front = TlsFront::start(to, &HOSTS).expect("start the TLS front");
        let to = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, front.port())));
        let proxy = Proxy::start(ProxyOptions { to, ..ProxyOptions::default() }).expect("start the proxy");
        Cloud { sim, front, proxy }
    }

    /// The CLI's cheapest call with credentials.
    fn aws_call(&self, world: &World, aws: Aws, profile: &str) -> Command {
        let bundle = world.path("ca.pem");
        std::fs::write(&bundle, self.front.ca_pem()).expect("write the CA");
        let words = ["--profile", profile, "ssm", "terminate-session", "--session-id", "none"];
        let mut command = world.aws(aws, &self.sim.endpoint(), &words);
        command
            .env("AWS_CA_BUNDLE", bundle)
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", self.proxy.port()));
        command.env_remove("AWS_ENDPOINT_URL_STS").env_remove("AWS_ENDPOINT_URL_SSO");
        command
    }

    /// Lets the CLI get credentials, without a code.
    #[track_caller]
    fn fill_the_cache(&self, world: &World, aws: Aws, profile: &str) {
        let finished = run(&mut self.aws_call(world, aws, profile));
        assert_eq!(cache(world).len(), 1, "{aws:?}: {}", finished.errors());
    }

    /// Signs in with a code, on a terminal.
    #[track_caller]
    fn sign_in(&self, world: &World, aws: Aws) {
        let mut terminal = Pty::spawn(&self.aws_call(world, aws, "work"));
        terminal.wait_for("MFA code");
        terminal.send(CODE);
        terminal.finish();
        assert_eq!(cache(world).len(), 1, "{aws:?} has left no credentials");
    }
}

const HOSTS: [&str; 3] =
    ["sts.amazonaws.com", "sts.us-east-1.amazonaws.com", "portal.sso.us-east-1.amazonaws.com"];

/// The files of the CLI's cache. CLI 2 keeps a session id in the same directory.
fn cache(world: &World) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(world.home().join(".aws/cli/cache")) else { return Vec::new() };
    let files = files.map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

#[test]
fn role_of_the_cli_s_cache_costs_no_call() {
    for aws in [Aws::V1, Aws::V2] {
        for more in ["", "external_id = id\nrole_session_name = me\nduration_seconds = 3600\n"] {
            let cloud = Cloud::start(strict());
            let sim = &cloud.sim;
            let world = home(sim, &format!("{ROLE}{more}"));
            cloud.fill_the_cache(&world, aws, "work");
            let before = std::fs::read(&cache(&world)[0]).expect("the file");
            assert_temporary(&signer_alone(&world, sim, "work"), "ASIAROLE");
            assert_eq!(sim.requests().assume_role, 1, "{aws:?}: STS was asked again");
            assert_eq!(std::fs::read(&cache(&world)[0]).expect("the file"), before);
        }
    }
}

#[test]
fn role_of_another_kind_is_not_taken_from_the_cache() {
    let cloud = Cloud::start(strict());
    let sim = &cloud.sim;
    let world = home(sim, ROLE);
    cloud.fill_the_cache(&world, Aws::V1, "work");
    write_config(&world, &format!("[profile base]\n{}\n[profile work]\n{ROLE}external_id = other\n", keys()));
    assert_temporary(&signer_alone(&world, sim, "work"), "ASIAROLE");
    assert_eq!(sim.requests().assume_role, 2);
}

#[test]
fn cache_that_others_can_write_is_not_taken() {
    let cloud = Cloud::start(strict());
    let sim = &cloud.sim;
    let world = home(sim, ROLE);
    cloud.fill_the_cache(&world, Aws::V1, "work");
    std::fs::set_permissions(&cache(&world)[0], Permissions::from_mode(0o622)).expect("set the mode");
    assert_temporary(&signer_alone(&world, sim, "work"), "ASIAROLE");
    assert_eq!(sim.requests().assume_role, 2);
}

/// AWS CLI 1 keeps SSO's credentials in memory only.
#[test]
fn sso_of_the_cli_s_cache_costs_no_call() {
    let cloud = Cloud::start(strict());
    let sim = &cloud.sim;
    let world = sso_session_world(sim);
    write_sso_cache(&world, SESSION_SHA1, "sim-sso-token", "2999-01-01T00:00:00Z");
    cloud.fill_the_cache(&world, Aws::V2, "sso");
    assert_eq!(sim.requests().role_credentials, 1);
    // Not even the token is needed.
    std::fs::remove_dir_all(world.home().join(".aws/sso")).expect("remove the tokens");
    assert_temporary(&signer_alone(&world, sim, "sso"), "ASIASSO");
    assert_eq!(sim.requests().role_credentials, 1);
}

#[test]
fn mfa_role_signs_and_resumes_with_the_cli_s_credentials() {
    for aws in [Aws::V1, Aws::V2] {
        let (cloud, echo) = (Cloud::start(strict()), Server::echo());
        let sim = &cloud.sim;
        let world = home(sim, MFA_ROLE);
        cloud.sign_in(&world, aws);
        let forward = Forward::start(&world, &Call::port(sim, echo.port()).profile("work"));
        assert_eq!(echo_through(forward.port, b"before"), b"before");
        sim.cut(&forward.id);
        assert_eq!(echo_through(forward.port, b"after"), b"after");
        let opens = sim.session(&forward.id).expect("the session").opens;
        assert!(
            opens.len() > 1 && opens.iter().all(|open| open.signature.as_ref().is_some_and(|s| s.verified)),
            "{opens:?}"
        );
        assert_eq!(sim.requests().assume_role, 1, "{aws:?}");
    }
}

#[test]
fn mfa_role_starts_sessions_and_gets_data_keys_with_the_cli_s_credentials() {
    let (cloud, echo) = (Cloud::start(strict()), Server::echo());
    let mut world = home(&cloud.sim, MFA_ROLE);
    cloud.sign_in(&world, Aws::V1);
    world.set("SSM_PLUGIN_RESTART", "1");
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::start(&world, &Call::port(&cloud.sim, echo.port()).profile("work"));
    assert_eq!(echo_through(forward.port, b"before"), b"before");
    cloud.sim.close_session(&forward.id, "idle");
    forward.plugin.stderr.wait_for(" ended (");
    assert_eq!(echo_through(forward.port, b"restarted"), b"restarted");
    assert_eq!((cloud.sim.sessions().len(), cloud.sim.requests().assume_role), (2, 1));

    let kms = KmsOptions { encrypt_shell: Some("alias/ssm".to_owned()), ..KmsOptions::default() };
    let cloud = Cloud::start(Config { kms, ..strict() });
    let mut world = home(&cloud.sim, MFA_ROLE);
    cloud.sign_in(&world, Aws::V1);
    world.set("AWS_ENDPOINT_URL_KMS", &cloud.sim.endpoint());
    let call = Call::shell(&cloud.sim).profile("work");
    let plugin = Running::spawn(&mut call.plugin(&world));
    plugin.stdout.wait_for("This session is encrypted");
    assert_eq!((cloud.sim.requests().generate_data_key, cloud.sim.requests().assume_role), (1, 1));
}

#[test]
fn mfa_role_whose_credentials_others_can_write_is_reported() {
    let (cloud, echo) = (Cloud::start(Config { require_signed_open: false, ..strict() }), Server::echo());
    let mut world = home(&cloud.sim, MFA_ROLE);
    cloud.sign_in(&world, Aws::V1);
    std::fs::set_permissions(&cache(&world)[0], Permissions::from_mode(0o666)).expect("set the mode");
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::start(&world, &Call::port(&cloud.sim, echo.port()).profile("work"));
    forward.plugin.stderr.wait_for(&format!(
        "profile work needs an MFA code; the credentials that the AWS CLI has cached in {} are not used: other users can \
         read or write the file (mode 666); opening without a signature",
        cache(&world)[0].display()
    ));
}

#[test]
fn mfa_role_without_credentials_of_the_cli_gets_advice_and_no_prompt() {
    let echo = Server::echo();
    let cloud = Cloud::start(Config { require_signed_open: false, ..strict() });
    let sim = &cloud.sim;
    let mut world = home(sim, MFA_ROLE);
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::start(&world, &Call::port(sim, echo.port()).profile("work"));
    let line = "profile work needs an MFA code; run aws sts get-caller-identity with this profile to sign in again; the next attempt uses the new credentials";
    forward.plugin.stderr.wait_for(&format!("{line}; opening without a signature"));
    assert_eq!(sim.requests().assume_role, 0, "STS would refuse this");
    // The next attempt uses the new credentials.
    cloud.sign_in(&world, Aws::V1);
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"after"), b"after");
    let opens = sim.session(&forward.id).expect("the session").opens;
    assert!(opens[0].signature.is_none(), "{opens:?}");
    assert!(
        opens.last().is_some_and(|open| open.signature.as_ref().is_some_and(|s| s.verified)),
        "{opens:?}"
    );
}

#[test]
fn credentials_that_the_service_rejects_are_not_taken_again() {
    let (cloud, echo) = (Cloud::start(strict()), Server::echo());
    let sim = &cloud.sim;
    let world = home(sim, ROLE);
    cloud.fill_the_cache(&world, Aws::V1, "work");
    let forward = Forward::start(&world, &Call::port(sim, echo.port()).profile("work"));
    let opens = sim.session(&forward.id).expect("the session").opens;
    sim.revoke(&opens[0].signature.as_ref().expect("a signature").access_key);
    sim.cut(&forward.id);
    assert_eq!(echo_through(forward.port, b"after"), b"after");
    assert_eq!(sim.requests().assume_role, 2);
}

#[test]
fn doctor_names_the_cache_and_the_end_of_its_credentials() {
    let cloud = Cloud::start(strict());
    let sim = &cloud.sim;
    let mut world = home(sim, MFA_ROLE);
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    let doctor = |world: &World| {
        let mut command = world.plugin();
        let url = format!("ws://127.0.0.1:{}/v1/data-channel/doctor?role=publish_subscribe", sim.port());
        run(command.args(["doctor", "--profile", "work", "--url", &url])).text()
    };
    let text = doctor(&world);
    assert!(
        text.contains(
            "needs an MFA code; run aws sts get-caller-identity with this profile to sign in again"
        ),
        "{text}"
    );
    cloud.sign_in(&world, Aws::V2);
    let text = doctor(&world);
    assert!(
        text.contains(
            "profile work (a role), from the AWS CLI's cache; temporary access key ASIA...0000, expires in "
        ),
        "{text}"
    );
    assert_eq!(sim.requests().assume_role, 1);
}
