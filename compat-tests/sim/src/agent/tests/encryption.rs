//! Sessions encrypted with a key from KMS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::crypto::Cipher;
use super::super::{AgentSpec, Document, KmsPolicy};
use super::client::{Client, spec};

type Contexts = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

fn encrypted(challenge: bool, require_challenge: bool) -> (AgentSpec, Contexts) {
    let contexts = Contexts::default();
    let seen = Arc::clone(&contexts);
    let mut spec =
        spec(Document::InteractiveCommand { command: "stty -echo; read line; echo got $line".to_owned() });
    spec.kms = Some(KmsPolicy {
        key_id: "alias/key".to_owned(),
        challenge,
        require_challenge,
        decrypt: Arc::new(move |ciphertext, context| {
            seen.lock().unwrap().push(context.clone());
            if ciphertext == b"wrapped" {
                Ok(data_key())
            } else {
                Err("InvalidCiphertextException".to_owned())
            }
        }),
    });
    (spec, contexts)
}

fn data_key() -> Vec<u8> {
    (0..64).collect()
}

/// Answers the request; gives the challenge that was in it.
async fn respond(client: &mut Client, acknowledge: bool, key: &[u8]) -> Value {
    let (payload_type, request) = client.message().await.unwrap();
    assert_eq!(payload_type, 5);
    let request: Value = serde_json::from_slice(&request).unwrap();
    let action = request["RequestedClientActions"][1].clone();
    assert_eq!(action["ActionType"], "KMSEncryption");
    assert_eq!(action["ActionParameters"]["KMSKeyId"], "alias/key");
    let result = json!({
        "KMSCipherTextKey": BASE64_STANDARD.encode(key),
        "KMSCipherTextHash": null,
        "ChallengeAcknowledgement": acknowledge,
    });
    let response = json!({"ClientVersion": "1.2.896.0", "ProcessedClientActions": [
        {"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": null, "Error": ""},
        {"ActionType": "KMSEncryption", "ActionStatus": 1, "ActionResult": result, "Error": ""},
    ], "Errors": null});
    client.send(6, response.to_string().as_bytes()).await;
    action["ActionParameters"]["Challenge"].clone()
}

/// Answers the encryption challenge.
async fn confirm(client: &mut Client) {
    let (payload_type, request) = client.message().await.unwrap();
    assert_eq!(payload_type, 8);
    let key = data_key();
    let cipher = Cipher::new(&[&key[32..], &key[..32]].concat()).unwrap();
    let request: Value = serde_json::from_slice(&request).unwrap();
    let challenge = BASE64_STANDARD.decode(request["Challenge"].as_str().unwrap()).unwrap();
    let plain = cipher.open(&challenge).unwrap();
    assert_eq!(plain.len(), 64);
    let answer = json!({"Challenge": BASE64_STANDARD.encode(cipher.seal(&plain))});
    client.send(9, answer.to_string().as_bytes()).await;
    client.cipher = Some(cipher);
}

#[tokio::test]
async fn a_session_is_encrypted_both_ways() {
    for acknowledge in [true, false] {
        let (spec, contexts) = encrypted(acknowledge, false);
        let mut client = Client::start(spec);
        let challenge = respond(&mut client, acknowledge, b"wrapped").await;
        confirm(&mut client).await;
        let (payload_type, complete) = client.message().await.unwrap();
        assert_eq!(payload_type, 7);
        let complete: Value = serde_json::from_slice(&complete).unwrap();
        assert_eq!(complete["CustomerMessage"], "This session is encrypted using AWS KMS.");

        let mut context = BTreeMap::from([
            ("aws:ssm:SessionId".to_owned(), "sid-1".to_owned()),
            ("aws:ssm:TargetId".to_owned(), "i-0123456789abcdef0".to_owned()),
        ]);
        if acknowledge {
            context.insert("aws:ssm:RandomChallenge".to_owned(), challenge.as_str().unwrap().to_owned());
        } else {
            assert_eq!(challenge, Value::Null);
        }
        assert_eq!(*contexts.lock().unwrap(), [context]);

        // The size is not encrypted.
        client.send(3, br#"{"cols":80,"rows":24}"#).await;
        client.send(1, b"secret\r").await;
        let (rest, _) = client.rest().await;
        let output: Vec<u8> = rest.into_iter().flat_map(|(_, payload)| payload).collect();
        assert!(String::from_utf8_lossy(&output).contains("got secret\r\n"));
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_decrypted_ends_the_session() {
    let (spec, _) = encrypted(true, false);
    let mut client = Client::start(spec);
    respond(&mut client, true, b"other").await;
    let (_, end) = client.rest().await;
    assert!(end.output.contains("Fetching data key failed"), "{}", end.output);
    assert!(end.output.ends_with("InvalidCiphertextException"), "{}", end.output);
}

#[tokio::test]
async fn a_required_challenge_has_to_be_used() {
    let (spec, contexts) = encrypted(true, true);
    let mut client = Client::start(spec);
    respond(&mut client, false, b"wrapped").await;
    let (_, end) = client.rest().await;
    assert!(end.output.ends_with("does not support required encryption context random challenge"));
    assert!(contexts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_answer_to_the_challenge_times_out() {
    let (spec, _) = encrypted(true, false);
    let mut client = Client::start(spec);
    respond(&mut client, true, b"wrapped").await;
    assert_eq!(client.message().await.unwrap().0, 8);
    let wrong = client.send(9, br#"{"Challenge":"AAAA"}"#).await;
    let (_, end) = client.rest().await;
    assert!(end.output.ends_with("Timed out waiting for encryption challenge."));
    assert!(!client.acknowledged.contains(&wrong));
}
