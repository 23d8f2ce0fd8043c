use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::*;
use crate::KmsOptions;

/// One direction's key of a session.
struct Key(LessSafeKey, Mutex<u64>);

impl Key {
    fn new(bytes: &[u8]) -> Key {
        Key(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes")), Mutex::new(0))
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, sealed) = sealed.split_at(12);
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("12 bytes");
        let mut sealed = sealed.to_vec();
        self.0.open_in_place(nonce, Aad::empty(), &mut sealed).expect("opens").to_vec()
    }

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut count = self.1.lock().expect("lock");
        *count += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&count.to_be_bytes());
        let mut sealed = plain.to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(sealing, Aad::empty(), &mut sealed).expect("seals");
        [&nonce[..], &sealed].concat()
    }
}

fn payload_type(frame: &Bytes) -> u32 {
    u32::from_be_bytes(frame[112..116].try_into().expect("four"))
}

#[tokio::test]
async fn a_shell_is_encrypted_with_a_data_key_of_the_context() {
    let kms = KmsOptions {
        encrypt_shell: Some("alias/ssm".to_owned()),
        challenge: true,
        require_challenge: true,
        ..KmsOptions::default()
    };
    let sim = start(Config { kms, ..Config::default() });
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;

    let request = client.frame_of("output_stream_data").await;
    assert_eq!(payload_type(&request), 5);
    let request: Value = serde_json::from_slice(&request[120..]).expect("JSON");
    let actions = request["RequestedClientActions"].as_array().expect("actions");
    let action =
        actions.iter().find(|a| a["ActionType"] == "KMSEncryption").expect("encryption is asked for");
    assert_eq!(action["ActionParameters"]["KMSKeyId"], "alias/ssm");

    let context = json!({
        "aws:ssm:SessionId": answer["SessionId"],
        "aws:ssm:TargetId": DEFAULT_TARGET,
        "aws:ssm:RandomChallenge": action["ActionParameters"]["Challenge"],
    });
    let request = json!({ "KeyId": "alias/ssm", "NumberOfBytes": 64, "EncryptionContext": context });
    let (_, key) = call(&sim, "TrentService.GenerateDataKey", request).await;
    let plain = STANDARD.decode(key["Plaintext"].as_str().expect("a key")).expect("base64");
    let (from_agent, to_agent) = (Key::new(&plain[..32]), Key::new(&plain[32..]));

    let result = json!({
        "KMSCipherTextKey": key["CiphertextBlob"], "KMSCipherTextHash": null, "ChallengeAcknowledgement": true,
    });
    let processed: Vec<Value> = actions
        .iter()
        .map(|a| {
            let result = if a["ActionType"] == "KMSEncryption" { result.clone() } else { Value::Null };
            json!({ "ActionType": a["ActionType"], "ActionStatus": 1, "ActionResult": result, "Error": "" })
        })
        .collect();
    let response =
        json!({ "ClientVersion": "1.2.896.0", "ProcessedClientActions": processed, "Errors": null });
    client.data(6, response.to_string().as_bytes()).await.expect("sends");

    let mut output = String::new();
    while !output.contains("a42z") {
        let frame = client.frame_of("output_stream_data").await;
        match payload_type(&frame) {
            8 => {
                let challenge: Value = serde_json::from_slice(&frame[120..]).expect("JSON");
                let sealed = STANDARD.decode(challenge["Challenge"].as_str().expect("text")).expect("base64");
                let answer =
                    json!({ "Challenge": STANDARD.encode(to_agent.seal(&from_agent.open(&sealed))) });
                client.data(9, answer.to_string().as_bytes()).await.expect("sends");
            }
            7 => {
                client.data(1, &to_agent.seal(b"echo a$((40+2))z\n")).await.expect("sends");
            }
            1 => output.push_str(&String::from_utf8_lossy(&from_agent.open(&frame[120..]))),
            other => panic!("payload type {other}"),
        }
    }
}
