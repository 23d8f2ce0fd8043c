//! The handshake without encryption.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Document, Generation};
use super::client::{Client, forward, properties, spec};

#[tokio::test]
async fn the_request_is_as_recorded() {
    let mut client = Client::start(forward(43051, Generation::V3_3));
    let (payload_type, request) = client.message().await.unwrap();
    assert_eq!(payload_type, 5);
    assert_eq!(
        String::from_utf8(request).unwrap(),
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"43051","type":"LocalPortForwarding"}}}]}"#
    );

    let command = "true".to_owned();
    let document = Document::NonInteractiveCommand { command, separate_output_stream: true };
    let mut client = Client::start(spec(document));
    assert_eq!(
        String::from_utf8(client.message().await.unwrap().1).unwrap(),
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"NonInteractiveCommands","Properties":null}}]}"#
    );
}

#[tokio::test]
async fn versions_and_messages_are_those_of_the_options() {
    let mut with_message = forward(1, Generation::V2_3);
    with_message.options.customer_message = "Be careful.".to_owned();
    let (request, complete) = Client::start(with_message).handshake("1.2.896.0").await;
    assert_eq!(request["AgentVersion"], "2.3.700.0");
    assert_eq!(complete["CustomerMessage"], "Be careful.");
    assert!(complete["HandshakeTimeToComplete"].as_u64().unwrap() > 0);

    let (request, complete) = Client::start(forward(1, Generation::V3_0)).handshake("1.2.896.0").await;
    assert_eq!((&request["AgentVersion"], &complete["CustomerMessage"]), (&json!("3.0.196.0"), &json!("")));

    let mut custom = spec(Document::Shell);
    custom.options.version = Some("3.1.1511.0".to_owned());
    custom.options.always_handshake = true;
    let (request, _) = Client::start(custom).handshake("1.2.896.0").await;
    assert_eq!(request["AgentVersion"], "3.1.1511.0");
    let parameters = &request["RequestedClientActions"][0]["ActionParameters"];
    assert_eq!(parameters, &json!({"SessionType": "Standard_Stream", "Properties": null}));
}

#[tokio::test]
async fn failed_actions_end_the_session() {
    for (status, error) in [(2, "no"), (3, "Unsupported action Port")] {
        let mut client = Client::start(forward(1, Generation::V3_3));
        client.message().await.unwrap();
        let response = json!({"ClientVersion": "1.2", "ProcessedClientActions": [
            {"ActionType": "SessionType", "ActionStatus": status, "ActionResult": Value::Null, "Error": error}
        ], "Errors": [error]});
        let number = client.send(6, response.to_string().as_bytes()).await;
        let (rest, end) = client.rest().await;
        assert!(rest.is_empty() && client.acknowledged.contains(&number));
        assert_eq!(
            end.output,
            format!(
                "Encountered error while initiating handshake. SessionType failed on client with status {status} \
                 error: {error}"
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_session_after_15_seconds() {
    let mut client = Client::start(spec(Document::Ssh { port: 22, properties: properties(json!({})) }));
    client.message().await.unwrap();
    let started = tokio::time::Instant::now();
    // Acknowledged, but no answer.
    client.send(1, b"SSH-2.0-early").await;
    client.acked(0).await;
    let end = (&mut client.agent).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), Duration::from_secs(15).as_secs());
    assert_eq!(
        end.output,
        "Encountered error while initiating handshake. Handshake timed out. Please ensure that you have the latest \
         version of the session manager plugin."
    );
}
