use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::*;
use crate::{RequestCounts, SessionState};

async fn post(sim: &Sim, path: &str, body: &str) -> u16 {
    http(sim, &format!("POST {path} HTTP/1.1\r\nContent-Type: application/json"), body).await.0
}

#[tokio::test]
async fn another_process_can_look_and_act() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.output("").await;
    let (_, body) = http(&sim, "GET /sim/sessions HTTP/1.1", "").await;
    let sessions: Vec<SessionReport> = serde_json::from_str(&body).expect("reports");
    assert_eq!((sessions.len(), sessions[0].state), (1, SessionState::Connected));
    let (_, body) = http(&sim, "GET /sim/requests HTTP/1.1", "").await;
    let requests: RequestCounts = serde_json::from_str(&body).expect("counts");
    assert_eq!((requests.start, requests.opens), (1, 1));

    assert_eq!(post(&sim, &format!("/sim/pause?session={}", id(&answer)), "").await, 200);
    client.frame_of("pause_publication").await;
    assert_eq!(post(&sim, "/sim/pause?on=false", "").await, 200);
    client.frame_of("start_publication").await;
    assert_eq!(post(&sim, "/sim/cut?kind=reset", "").await, 200);
    assert_eq!(client.end().await, Ended::Broken);
    assert_eq!(post(&sim, "/sim/cut?session=nope", "").await, 404);
    assert_eq!(post(&sim, "/sim/faults", r#"{"loss_up":1.0,"delay":5}"#).await, 200);
    assert_eq!(post(&sim, "/sim/resume?policy=deny", "").await, 200);
    assert_eq!(resume(&sim, id(&answer)).await["__type"], "AccessDeniedException");
    assert_eq!(post(&sim, "/sim/close?output=so%20long", "").await, 200);
    assert_eq!(report(&sim, &answer).output, "so long");
}

#[tokio::test]
async fn serves_tls_with_its_own_authority() {
    let sim = start(Config { tls: true, ..Config::default() });
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(sim.ca_pem().expect("an authority").as_bytes()).expect("PEM");
    roots.add(ca).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["127.0.0.1", "localhost"] {
        let tcp = TcpStream::connect(("127.0.0.1", sim.port())).await.expect("connects");
        let name = ServerName::try_from(name).expect("a name");
        let mut tls = connector.connect(name, tcp).await.expect("trusts");
        tls.write_all(b"GET /sim/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("writes");
        let mut answer = String::new();
        let _ = tls.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"), "{answer}");
    }
    assert!(sim.endpoint().starts_with("https://127.0.0.1:"));
}
