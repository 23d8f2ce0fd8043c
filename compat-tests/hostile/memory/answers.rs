//! Answers of HTTP services that do not end.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::victim::{Progress, Session, Unread, Victim, announce, assert_all};
use crate::harness::World;
use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, Socket};
use crate::harness::net::Server;
use crate::harness::retry::uninterrupted;
use crate::harness::wire;

/// Memory held for an endless answer of the API, of a metadata service or of KMS.
#[test]
fn endless_answers() {
    let container = |world: &mut World, at: &str| {
        world.unset(KEYS);
        world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{at}/"));
    };
    let metadata = |world: &mut World, at: &str| {
        world.unset(KEYS);
        world.unset(&["AWS_EC2_METADATA_DISABLED"]);
        world.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at);
    };
    let sts = |world: &mut World, at: &str| {
        world.unset(KEYS);
        let token = world.path("token");
        std::fs::write(&token, "a token").expect("write the token");
        world.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string());
        world.set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
        world.set("AWS_ENDPOINT_URL_STS", at);
    };
    let kms = |world: &mut World, at: &str| world.set("AWS_ENDPOINT_URL_KMS", at);
    let nothing = |_: &mut World, _: &str| {};
    type Prepare = fn(&mut World, &str);
    type Play = fn(&mut Socket);
    let cases: [(&str, Prepare, Play); 5] = [
        ("ResumeSession", nothing, |socket| {
            announce(socket, Session::Multiplexed);
            socket.hang_up();
        }),
        ("credentials of a container", container, |socket| announce(socket, Session::Multiplexed)),
        ("metadata service", metadata, |socket| announce(socket, Session::Multiplexed)),
        ("AssumeRoleWithWebIdentity", sts, |socket| announce(socket, Session::Multiplexed)),
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
        victim.check_memory(name, 48)
    }));
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

/// The keys that every world has.
const KEYS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// Parts of 64 KiB of an endless answer, so that even a program without a limit leaves the machine alone: 1 GiB.
const ENDLESS_PARTS: usize = 16 << 10;
