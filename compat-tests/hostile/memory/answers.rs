//! Answers of HTTP services that do not end.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::victim::{Progress, Session, Unread, Victim, announce, assert_all};
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::{Server, connect, eventually, opened_port};
use crate::harness::retry::uninterrupted;
use crate::harness::{REGION, TARGET, World, wire};

/// Prepares a world in which some service is the one at an address.
type Prepare = fn(&mut World, &str);
/// The gateway's part.
type Play = fn(&mut Socket);

/// Memory held for an endless answer of the API, of a metadata service or of KMS.
#[test]
fn endless_answers() {
    let nothing = |_: &mut World, _: &str| {};
    let kms = |world: &mut World, at: &str| world.set("AWS_ENDPOINT_URL_KMS", at);
    let port = |socket: &mut Socket| announce(socket, Session::Multiplexed);
    let cases: [(&str, Prepare, Play); 7] = [
        ("ResumeSession", nothing, |socket| {
            announce(socket, Session::Multiplexed);
            socket.hang_up();
        }),
        ("credentials of a container", container, port),
        ("metadata service", metadata, port),
        ("AssumeRoleWithWebIdentity", web_identity, port),
        ("GetRoleCredentials", |world, at| sso(world, at, "2999-01-01T00:00:00Z"), port),
        ("CreateToken", |world, at| sso(world, at, "2020-01-01T00:00:00Z"), port),
        ("GenerateDataKey", kms, |socket| {
            let parameters = json!({"KMSKeyId": "alias/ssm"});
            let action = json!({"ActionType": "KMSEncryption", "ActionParameters": parameters});
            let request = json!({"AgentVersion": "3.3.1000.0", "RequestedClientActions": [action]});
            socket.data(wire::PAYLOAD_HANDSHAKE_REQUEST, request.to_string());
        }),
    ];
    assert_all(cases.map(|(name, prepare, play)| {
        let endless = Endless::start();
        let gateway = Gateway::scripted(play);
        let mut world = World::new();
        prepare(&mut world, &endless.url());
        let started = Started { endpoint: endless.url(), ..Started::of(&gateway) };
        let mut victim = Victim::start_session(world, &started, Unread::Nothing);
        endless.progress.await_end(&victim);
        victim.check_memory(name, BELOW)
    }));
}

/// StartSession of a port that outlives its session: the next client asks for another one.
#[test]
fn an_endless_answer_of_start_session() {
    let endless = Endless::start();
    let gateway = Gateway::scripted(|socket| {
        announce(socket, Session::Multiplexed);
        socket.close("");
    });
    let mut world = World::new();
    world.set("SSM_PLUGIN_RESTART", "1");
    let started = Started { endpoint: endless.url(), ..Started::of(&gateway) };
    let mut victim = Victim::start_session(world, &started, Unread::Nothing);
    let port = opened_port(victim.stdout());
    let mut clients = Vec::new();
    eventually("StartSession is called", || {
        let mut client = connect(port);
        let _ = client.write_all(b"hello");
        clients.push(client);
        endless.progress.bursts.load(Ordering::SeqCst) > 0
    });
    endless.progress.await_end(&victim);
    assert_all([victim.check_memory("StartSession", BELOW)]);
}

/// Each command by its first call.
#[test]
fn endless_answers_to_commands() {
    let cases: [(&str, &[&str]); 4] = [
        ("StartSession", &["shell", TARGET]),
        ("DescribeInstanceInformation", &["shell", "tag:Env=prod"]),
        ("SendCommand", &["run", TARGET, "--", "true"]),
        ("GetCallerIdentity", &["doctor", "--target", TARGET]),
    ];
    assert_all(cases.map(|(name, words)| {
        let endless = Endless::start();
        let mut world = World::new();
        world.set("AWS_ENDPOINT_URL", &endless.url());
        world.set("AWS_REGION", REGION);
        let mut command = world.plugin();
        command.args(words);
        let mut victim = Victim::run(world, &mut command, Unread::Nothing);
        endless.progress.await_end(&victim);
        victim.check_memory(name, BELOW)
    }));
}

fn container(world: &mut World, at: &str) {
    world.unset(KEYS);
    world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{at}/"));
}

fn metadata(world: &mut World, at: &str) {
    world.unset(KEYS);
    world.unset(&["AWS_EC2_METADATA_DISABLED"]);
    world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at);
}

fn web_identity(world: &mut World, at: &str) {
    world.unset(KEYS);
    let token = world.path("token");
    std::fs::write(&token, "a token").expect("write the token");
    world.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string());
    world.set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
    world.set("AWS_ENDPOINT_URL_STS", at);
}

/// A profile of `aws sso login`, whose token `expires` then.
fn sso(world: &mut World, at: &str, expires: &str) {
    world.unset(KEYS);
    let folder = world.home().join(".aws/sso/cache");
    std::fs::create_dir_all(&folder).expect("the cache of SSO");
    let place = "sso_region = us-east-1\nsso_start_url = https://sim.awsapps.com/start\n";
    let role = "sso_account_id = 123456789012\nsso_role_name = role\n";
    let profile = format!("[sso-session corp]\n{place}[profile sso]\nsso_session = corp\n{role}");
    std::fs::write(world.home().join(".aws/config"), profile).expect("write the profile");
    let token = json!({
        "startUrl": "https://sim.awsapps.com/start", "region": "us-east-1", "accessToken": "a token",
        "expiresAt": expires, "clientId": "client", "clientSecret": "client-secret",
        "registrationExpiresAt": "2999-01-01T00:00:00Z", "refreshToken": "another token",
    });
    std::fs::write(folder.join(SHA1_OF_CORP), token.to_string()).expect("write the token");
    world.set("AWS_PROFILE", "sso");
    for name in ["SSO", "SSO_OIDC"] {
        world.set(&format!("AWS_ENDPOINT_URL_{name}"), at);
    }
}

/// An HTTP service whose answers do not end.
struct Endless {
    server: Server,
    progress: Arc<Progress>,
}

impl Endless {
    fn start() -> Endless {
        let progress = Arc::new(Progress::default());
        let seen = Arc::clone(&progress);
        let server = Server::start(move |mut stream| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n";
            let mut request = [0; 4096];
            let _ = uninterrupted(|| stream.read(&mut request));
            let mut answer = stream.write_all(head.as_bytes());
            for _ in 0..ENDLESS_PARTS {
                if answer.is_err() {
                    return;
                }
                seen.bursts.fetch_add(1, Ordering::SeqCst);
                answer = stream.write_all(&[b' '; 64 << 10]);
                seen.await_sample();
            }
            // No end: the reader waits.
            let _ = uninterrupted(|| stream.read(&mut request));
        });
        Endless { server, progress }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }
}

/// Memory of the process, in MiB.
const BELOW: usize = 48;
/// Name of the file in which the token of the SSO session `corp` is kept.
const SHA1_OF_CORP: &str = "ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
/// The keys that every world has.
const KEYS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// Parts of 64 KiB of an endless answer, so that even a program without a limit leaves the machine alone: 1 GiB. Each
/// waits until the memory has been read, since a program that refuses it may end at once.
const ENDLESS_PARTS: usize = 16 << 10;
