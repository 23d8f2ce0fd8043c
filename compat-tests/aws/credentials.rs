//! Credentials of each kind, from real profile files and the sources behind them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ssm_sim::{SignatureReport, Sim};

use super::{Call, Forward, known, strict_sim, world_without_credentials, write, write_config};
use crate::harness::net::{Server, echo_through};
use crate::harness::process::{Signal, run};
use crate::harness::sim::sim;
use crate::harness::{Aws, TARGET, World, named_pipe};

/// Signer of the opening of a session called with this profile, by the binary alone and through the AWS CLI.
#[track_caller]
fn signer(world: &World, sim: &Sim, profile: &str) -> SignatureReport {
    let signature = signer_alone(world, sim, profile);
    let of_the_cli = signer_through_the_cli(world, sim, profile);
    assert!(of_the_cli.verified, "{of_the_cli:?}");
    assert_eq!(of_the_cli.access_key[..4], signature.access_key[..4], "{of_the_cli:?}");
    signature
}

#[track_caller]
pub(super) fn signer_alone(world: &World, sim: &Sim, profile: &str) -> SignatureReport {
    let echo = Server::echo();
    let forward = Forward::start(world, &Call::port(sim, echo.port()).profile(profile));
    let opens = sim.session(&forward.id).expect("the session").opens;
    let signature = opens[0].signature.clone().expect("a signature");
    assert!(signature.verified, "{signature:?}");
    signature
}

/// The same through the unchanged AWS CLI, which finds the credentials for its own call in the same place.
#[track_caller]
fn signer_through_the_cli(world: &World, sim: &Sim, profile: &str) -> SignatureReport {
    let mut command = world.aws(Aws::V1, &sim.endpoint(), &["ssm", "start-session", "--target", TARGET]);
    command.args(["--document-name", "AWS-StartNonInteractiveCommand"]);
    command.args(["--parameters", "{\"command\": [\"echo by the CLI\"]}"]);
    if !profile.is_empty() {
        command.args(["--profile", profile]);
    }
    let finished = run(&mut command);
    finished.assert_ok();
    assert!(finished.text().contains("by the CLI"), "{}", finished.text());
    let session = sim.sessions().into_iter().rfind(|s| s.document.contains("NonInteractive"));
    session.expect("the CLI's session").opens[0].signature.clone().expect("a signature")
}

#[track_caller]
pub(super) fn assert_temporary(signature: &SignatureReport, prefix: &str) {
    assert!(signature.access_key.starts_with(prefix), "{signature:?}");
    assert!(signature.session_token, "{signature:?}");
}

pub(super) fn keys() -> String {
    let known = known();
    format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", known.access_key, known.secret_key)
}

/// `aws` reads its own names for these from the environment.
pub(super) fn point_at(world: &mut World, sim: &Sim, services: &[&str]) {
    for service in services {
        world.set(&format!("AWS_ENDPOINT_URL_{service}"), &sim.endpoint());
    }
}

#[test]
fn profile_of_the_arguments_comes_before_the_environment() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    world.set("AWS_ACCESS_KEY_ID", "AKIAWRONG");
    world.set("AWS_SECRET_ACCESS_KEY", "wrong");
    write(&world, ".aws/credentials", &format!("[work]\n{}", keys()));
    assert_eq!(signer(&world, &sim, "work").access_key, known().access_key);
}

#[test]
fn environment_comes_before_the_profile_it_names() {
    let (mut world, sim) = (World::new(), strict_sim());
    world.set("AWS_PROFILE", "work");
    write(
        &world,
        ".aws/credentials",
        "[work]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n",
    );
    // The CLI itself takes the profile here, and would be refused.
    assert_eq!(signer_alone(&world, &sim, "work").access_key, known().access_key);
}

#[test]
fn default_profile_in_another_file() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    write(&world, "elsewhere", &format!("[default]\n{}", keys()));
    let path = world.home().join("elsewhere");
    world.set("AWS_SHARED_CREDENTIALS_FILE", &path.display().to_string());
    assert_eq!(signer(&world, &sim, "").access_key, known().access_key);
}

#[test]
fn role_with_a_source_profile() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    point_at(&mut world, &sim, &["STS"]);
    let role = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n";
    write_config(&world, &format!("[profile base]\n{}\n[profile role]\n{role}", keys()));
    assert_temporary(&signer(&world, &sim, "role"), "ASIAROLE");
}

#[test]
fn role_with_the_environment_as_source() {
    let (mut world, sim) = (World::new(), strict_sim());
    point_at(&mut world, &sim, &["STS"]);
    let role = "role_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Environment\n";
    write_config(&world, &format!("[profile role]\n{role}"));
    assert_temporary(&signer(&world, &sim, "role"), "ASIAROLE");
}

#[test]
fn web_identity_of_a_profile_and_of_the_environment() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    point_at(&mut world, &sim, &["STS"]);
    write(&world, "identity", "sim-web-identity");
    let file = world.home().join("identity").display().to_string();
    let role = "arn:aws:iam::123456789012:role/r";
    write_config(&world, &format!("[profile web]\nrole_arn = {role}\nweb_identity_token_file = {file}\n"));
    assert_temporary(&signer(&world, &sim, "web"), "ASIAWEB");
    world.set("AWS_ROLE_ARN", role);
    world.set("AWS_WEB_IDENTITY_TOKEN_FILE", &file);
    assert_temporary(&signer(&world, &sim, ""), "ASIAWEB");
}

#[test]
fn credential_process() {
    let (world, sim) = (world_without_credentials(), strict_sim());
    let known = known();
    let json = format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}","Expiration":"2999-01-01T00:00:00Z"}}"#,
        known.access_key, known.secret_key
    );
    write(&world, "a folder/keys.sh", &format!("#!/bin/sh\ntest \"$1\" = 'two words' && echo '{json}'\n"));
    let script = world.home().join("a folder/keys.sh");
    let line = format!("credential_process = sh \"{}\" \"two words\"\n", script.display());
    write_config(&world, &format!("[profile process]\n{line}"));
    assert_eq!(signer(&world, &sim, "process").access_key, known.access_key);
}

/// The cache file that `aws sso login` writes is named by the SHA-1 of the session's name, or of the start URL.
pub(super) fn write_sso_cache(world: &World, sha1_of_name: &str, access_token: &str, expires: &str) {
    let token = serde_json::json!({
        "startUrl": "https://sim.awsapps.com/start", "region": "us-east-1", "accessToken": access_token,
        "expiresAt": expires, "clientId": "client", "clientSecret": "client-secret",
        "registrationExpiresAt": "2999-01-01T00:00:00Z", "refreshToken": "sim-refresh-token",
    });
    write(world, &format!(".aws/sso/cache/{sha1_of_name}.json"), &token.to_string());
}

pub(super) const SSO_ROLE: &str = "sso_account_id = 123456789012\nsso_role_name = role\n";
pub(super) const SSO_PLACE: &str = "sso_region = us-east-1\nsso_start_url = https://sim.awsapps.com/start\n";
/// Of `corp`.
pub(super) const SESSION_SHA1: &str = "ee0bfd2552fbd840c02cc48b6e823320543c450f";
/// Of the start URL.
const URL_SHA1: &str = "9543de644b3558fb8b832a46caf8b7b376a50c3e";

pub(super) fn sso_session_world(sim: &Sim) -> World {
    let mut world = world_without_credentials();
    point_at(&mut world, sim, &["SSO", "SSO_OIDC"]);
    write_config(
        &world,
        &format!(
            "[sso-session corp]\n{SSO_PLACE}sso_registration_scopes = sso:account:access\n\
             [profile sso]\nsso_session = corp\n{SSO_ROLE}"
        ),
    );
    world
}

#[test]
fn sso_session_with_a_token() {
    let sim = strict_sim();
    let world = sso_session_world(&sim);
    write_sso_cache(&world, SESSION_SHA1, "sim-sso-token", "2999-01-01T00:00:00Z");
    assert_temporary(&signer(&world, &sim, "sso"), "ASIASSO");
}

#[test]
fn sso_session_refreshes_its_token() {
    let sim = strict_sim();
    let world = sso_session_world(&sim);
    write_sso_cache(&world, SESSION_SHA1, "an-expired-token", "2020-01-01T00:00:00Z");
    assert_temporary(&signer(&world, &sim, "sso"), "ASIASSO");
}

#[test]
fn sso_without_a_session() {
    let sim = strict_sim();
    let mut world = world_without_credentials();
    point_at(&mut world, &sim, &["SSO"]);
    write_config(&world, &format!("[profile sso]\n{SSO_PLACE}{SSO_ROLE}"));
    write_sso_cache(&world, URL_SHA1, "sim-sso-token", "2999-01-01T00:00:00Z");
    assert_temporary(&signer(&world, &sim, "sso"), "ASIASSO");
}

#[test]
fn container() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/container/credentials", sim.endpoint()));
    world.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "sim-container-token");
    assert_temporary(&signer(&world, &sim, ""), "ASIATASK");
    // A profile that only names a region leaves it to the machine.
    write_config(&world, "[profile place]\nregion = us-east-1\n");
    assert_temporary(&signer(&world, &sim, "place"), "ASIATASK");
}

#[test]
fn instance_metadata() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    world.set("AWS_EC2_METADATA_DISABLED", "false");
    world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &sim.endpoint());
    // Not for the metadata service.
    world.set("HTTP_PROXY", "http://127.0.0.1:9");
    assert_temporary(&signer_alone(&world, &sim, ""), "ASIAIMDS");
    world.unset(&["HTTP_PROXY"]);
    assert_temporary(&signer(&world, &sim, ""), "ASIAIMDS");
}

/// A pipe, a device without an end: whatever would hold up a read of the profiles holds up neither the port nor its
/// end, and is said.
#[test]
fn profile_file_that_blocks_costs_the_signature_only() {
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        for endless in [false, true] {
            let mut world = world_without_credentials();
            let path = if endless { PathBuf::from("/dev/zero") } else { world.path("pipe") };
            if !endless {
                named_pipe(&path);
            }
            world.set(variable, &path.display().to_string());
            let origin = format!(" (from {variable})");
            assert_costs_the_signature_only(world, &path, &origin, "it is not a regular file");
        }
    }
}

/// The SDK opens these after the profiles.
#[test]
fn token_file_that_blocks_costs_the_signature_only() {
    for (set, config, name, origin) in TOKEN_FILES {
        let mut world = world_without_credentials();
        let path = if name.starts_with('/') { PathBuf::from(name) } else { world.home().join(name) };
        let with_path = |text: &str| text.replace("PATH", &path.display().to_string());
        write_config(&world, &with_path(config));
        for variable in set {
            world.set(variable, &path.display().to_string());
        }
        if !name.starts_with('/') {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
            named_pipe(&path);
        }
        assert_costs_the_signature_only(world, &path, origin, "it is not a regular file");
    }
    let mut world = world_without_credentials();
    write_config(&world, "[default]\nlogin_session = arn:aws:iam::0123456789012:user/Admin\n");
    world.set("AWS_LOGIN_CACHE_DIRECTORY", &world.home().display().to_string());
    let path = world.home().join(LOGIN_FILE);
    named_pipe(&path);
    assert_costs_the_signature_only(world, &path, "", "it is not a regular file");
    let mut world = world_without_credentials();
    let path = world.path("large");
    std::fs::File::create(&path).expect("a file").set_len((1 << 20) + 1).expect("its length");
    world.set("AWS_ROLE_ARN", "a-role");
    world.set("AWS_WEB_IDENTITY_TOKEN_FILE", &path.display().to_string());
    let origin = " (from AWS_WEB_IDENTITY_TOKEN_FILE)";
    assert_costs_the_signature_only(world, &path, origin, "it is larger than 1048576 bytes");
}

/// The SDK opens no token file when the profile has credentials.
#[test]
fn token_file_that_is_not_needed_may_block() {
    let (mut world, sim) = (world_without_credentials(), strict_sim());
    write_config(&world, &format!("[default]\n{}", keys()));
    let path = world.path("pipe");
    named_pipe(&path);
    for variable in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] {
        world.set(variable, &path.display().to_string());
    }
    world.set("AWS_ROLE_ARN", "a-role");
    assert!(signer_alone(&world, &sim, "").verified);
}

#[track_caller]
fn assert_costs_the_signature_only(mut world: World, path: &Path, origin: &str, reason: &str) {
    let (sim, echo) = (sim(), Server::echo());
    world.set("SSM_PLUGIN_STATUS", "always");
    let forward = Forward::start(&world, &Call::port(&sim, echo.port()));
    assert_eq!(echo_through(forward.port, b"unsigned"), b"unsigned");
    let open = sim.session(&forward.id).expect("the session").opens[0].clone();
    assert!(open.signature.is_none(), "{}{origin}: {:?}", path.display(), open.signature);
    forward.plugin.signal(Signal::INT);
    let finished = forward.plugin.finish_within(Duration::from_secs(5));
    finished.assert_ok();
    let line = format!(
        "session-manager-plugin: signing the connection failed: {}{origin} cannot be read: {reason}; opening \
         without a signature\n",
        path.display()
    );
    assert_eq!(finished.errors(), line);
}

/// The common way to have no profiles at all.
#[test]
fn profile_files_may_be_the_null_device_or_absent() {
    for path in ["/dev/null", "/nowhere/config", "/"] {
        let (mut world, sim) = (World::new(), strict_sim());
        world.set("AWS_CONFIG_FILE", path);
        world.set("AWS_SHARED_CREDENTIALS_FILE", path);
        assert!(signer_alone(&world, &sim, "").verified, "{path}");
    }
}

/// Variables to set, the profiles, the pipe (a name below the home folder) or device, and its origin in the message.
const TOKEN_FILES: [(&[&str], &str, &str, &str); 9] = [
    (&["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"], "", "token", " (from AWS_WEB_IDENTITY_TOKEN_FILE)"),
    (
        &[],
        "[default]\nrole_arn = r\nweb_identity_token_file = PATH\n",
        "/dev/zero",
        " (from web_identity_token_file in profile default)",
    ),
    (
        &[],
        "[default]\nrole_arn = r\nsource_profile = base\n\
         [profile base]\nrole_arn = b\nweb_identity_token_file = PATH\n",
        "token",
        " (from web_identity_token_file in profile base)",
    ),
    (
        &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
        "",
        "token",
        " (from AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)",
    ),
    (
        &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
        "[default]\nrole_arn = r\ncredential_source = EcsContainer\n",
        "token",
        " (from AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)",
    ),
    (
        &[],
        "[default]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://sim.awsapps.com/start\n",
        ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json",
        "",
    ),
    (
        &[],
        "[default]\nsso_region = us-east-1\nsso_start_url = https://sim.awsapps.com/start\n\
         sso_account_id = 1\nsso_role_name = r\n",
        ".aws/sso/cache/9543de644b3558fb8b832a46caf8b7b376a50c3e.json",
        "",
    ),
    (
        &[],
        "[default]\nlogin_session = arn:aws:iam::0123456789012:user/Admin\n",
        ".aws/login/cache/36db1d138ff460920374e4c3d8e01f53f9f73537e89c88d639f68393df0e2726.json",
        "",
    ),
    (
        &[],
        "[default]\nrole_arn = r\nsource_profile = base\n\
         [profile base]\nlogin_session = arn:aws:iam::0123456789012:user/Admin\n",
        ".aws/login/cache/36db1d138ff460920374e4c3d8e01f53f9f73537e89c88d639f68393df0e2726.json",
        "",
    ),
];
/// Of the session `arn:aws:iam::0123456789012:user/Admin`.
const LOGIN_FILE: &str = "36db1d138ff460920374e4c3d8e01f53f9f73537e89c88d639f68393df0e2726.json";
