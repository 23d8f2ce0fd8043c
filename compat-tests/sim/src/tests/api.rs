use super::*;
use crate::{Credentials, KmsOptions, ResumePolicy, SessionState};

fn kind(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["__type"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn start_session_answers_id_token_and_url() {
    let sim = start(Config { user: "alice".to_owned(), ..Config::default() });
    let answer = start_session(&sim, None, json!({})).await;
    let id = id(&answer);
    let hex = id.strip_prefix("alice-").expect("the user's name");
    assert!(hex.len() == 17 && hex.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert!(answer["TokenValue"].as_str().expect("token").len() > 300);
    let url = answer["StreamUrl"].as_str().expect("url");
    let head =
        format!("ws://127.0.0.1:{}/v1/data-channel/{id}?role=publish_subscribe&cell-number=", sim.port());
    assert!(url.starts_with(&head), "{url}");
    let report = report(&sim, &answer);
    assert_eq!(
        (report.state, report.document.as_str()),
        (SessionState::Started, "SSM-SessionManagerRunShell")
    );
    assert_eq!(sim.requests().start, 1);
}

#[tokio::test]
async fn mistakes_are_answered_as_by_aws() {
    let sim = start(Config::default());
    for (target, body, expected) in [
        ("AmazonSSM.StartSession", json!({ "Target": "i-nope" }), "TargetNotConnected"),
        ("AmazonSSM.StartSession", json!({}), "ValidationException"),
        ("AmazonSSM.StartSession", json!({ "Target": 1 }), "SerializationException"),
        (
            "AmazonSSM.StartSession",
            json!({ "Target": "x", "Parameters": { "a": "b" } }),
            "SerializationException",
        ),
        ("AmazonSSM.StartSession", json!({ "Target": "x", "DocumentName": "y" }), "InvalidDocument"),
        ("AmazonSSM.ResumeSession", json!({ "SessionId": "nope" }), "DoesNotExistException"),
        ("AmazonSSM.TerminateSession", json!({ "SessionId": "nope" }), "DoesNotExistException"),
        ("AmazonSSM.Nope", json!({}), "UnknownOperationException"),
    ] {
        let answer = call(&sim, target, body.clone()).await;
        assert_eq!(kind(&answer), (400, expected), "{target} {body}");
    }
    let message =
        call(&sim, "AmazonSSM.StartSession", json!({ "Target": "i-nope" })).await.1["message"].clone();
    assert_eq!(message, "i-nope is not connected.");
    let (status, body) = http(&sim, "POST / HTTP/1.1\r\nX-Amz-Target: AmazonSSM.StartSession", "{}").await;
    assert!(status == 400 && body.contains("MissingAuthenticationTokenException"), "{body}");
    assert_eq!(sim.sessions(), []);
}

#[tokio::test]
async fn with_credentials_signatures_are_verified() {
    let pair = |access: &str| Credentials { access_key: access.to_owned(), secret_key: "s".to_owned() };
    for (access, expected) in
        [("OTHER", "UnrecognizedClientException"), ("AKIDSIM", "InvalidSignatureException")]
    {
        let sim = start(Config { credentials: Some(pair(access)), ..Config::default() });
        let answer = call(&sim, "AmazonSSM.StartSession", json!({ "Target": DEFAULT_TARGET })).await;
        assert_eq!(kind(&answer), (400, expected));
    }
}

#[tokio::test]
async fn resume_renews_the_token_and_the_url() {
    let sim = start(Config::default());
    let first = start_session(&sim, None, json!({})).await;
    let second = resume(&sim, id(&first)).await;
    assert_eq!(first["SessionId"], second["SessionId"]);
    assert_ne!(first["TokenValue"], second["TokenValue"]);
    assert_ne!(first["StreamUrl"], second["StreamUrl"]);
    sim.set_resume(ResumePolicy::Deny);
    assert_eq!(resume(&sim, id(&first)).await["__type"], "AccessDeniedException");
    sim.set_resume(ResumePolicy::TimedOut);
    assert_eq!(resume(&sim, id(&first)).await, json!({ "SessionId": first["SessionId"] }));
    assert_eq!(report(&sim, &first).resumes, 3);
}

#[tokio::test]
async fn data_keys_open_with_their_context_only() {
    let sim = start(Config::default());
    let context = json!({ "aws:ssm:SessionId": "s", "aws:ssm:TargetId": "t" });
    let request = json!({ "KeyId": "alias/k", "NumberOfBytes": 64, "EncryptionContext": context });
    let (status, key) = call(&sim, "TrentService.GenerateDataKey", request).await;
    assert_eq!((status, &key["KeyId"]), (200, &json!("arn:aws:kms:us-east-1:123456789012:alias/k")));
    let decrypt = |context: Value| {
        let request = json!({ "CiphertextBlob": key["CiphertextBlob"], "EncryptionContext": context });
        call(&sim, "TrentService.Decrypt", request)
    };
    assert_eq!(decrypt(context).await.1["Plaintext"], key["Plaintext"]);
    let answer = decrypt(json!({ "aws:ssm:SessionId": "s" })).await;
    assert_eq!(kind(&answer), (400, "InvalidCiphertextException"));

    let sim = start(Config { kms: KmsOptions { deny: true, ..KmsOptions::default() }, ..Config::default() });
    let answer =
        call(&sim, "TrentService.GenerateDataKey", json!({ "KeyId": "k", "NumberOfBytes": 64 })).await;
    assert_eq!(kind(&answer), (400, "AccessDeniedException"));
}

#[tokio::test]
async fn ecs_answers_in_its_own_case() {
    let sim = start(Config::default());
    let service = "AmazonEC2ContainerServiceV20141113";
    let request = json!({ "cluster": "c", "task": "0123", "command": "true", "interactive": true });
    let (status, answer) = call(&sim, &format!("{service}.ExecuteCommand"), request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["containerName"], "app");
    let request = json!({ "cluster": "c", "tasks": ["0123"] });
    let (_, tasks) = call(&sim, &format!("{service}.DescribeTasks"), request).await;
    let runtime = tasks["tasks"][0]["containers"][0]["runtimeId"].as_str().expect("a runtime id");
    let session = sim.session(answer["session"]["sessionId"].as_str().expect("an id")).expect("a session");
    assert_eq!(session.target, format!("ecs:c_0123_{runtime}"));
    assert!(answer["session"]["tokenValue"].is_string() && answer["session"]["streamUrl"].is_string());
    let request = json!({ "task": "0123", "command": "true", "interactive": false });
    let answer = call(&sim, &format!("{service}.ExecuteCommand"), request).await;
    assert_eq!(kind(&answer), (400, "InvalidParameterException"));
}
