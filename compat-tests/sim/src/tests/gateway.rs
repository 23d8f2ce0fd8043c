use super::*;
use crate::{Cut, SessionState};

#[tokio::test]
async fn a_shell_runs_and_its_exit_closes_the_channel() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.type_line("echo a$((40+2))z").await;
    client.output("a42z").await;
    assert_eq!(report(&sim, &answer).state, SessionState::Connected);
    client.type_line("exit").await;
    let closed = client.frame_of("channel_closed").await;
    let payload: Value = serde_json::from_slice(&closed[120..]).expect("JSON");
    assert_eq!((&payload["SessionId"], &payload["Output"]), (&answer["SessionId"], &json!("")));
    let report = report(&sim, &answer);
    assert_eq!((report.state, report.terminated), (SessionState::Ended, false));
    assert_eq!((report.up.messages, report.up.resends), (2, 0));
    assert_eq!(report.agent.messages_up, 2);
    assert!(report.up.acks > 0 && report.down.acks == 2, "{report:?}");
    assert_eq!(report.opens.len(), 1);
    assert_eq!((report.opens[0].accepted, report.opens[0].client_version.as_str()), (true, "1.2.896.0"));
    assert_eq!(resume(&sim, id(&answer)).await, json!({ "SessionId": answer["SessionId"] }));
}

#[tokio::test]
async fn the_first_frame_is_checked() {
    let sim = start(Config { min_client_version: Some("1.2.764.0".to_owned()), ..Config::default() });
    let answer = start_session(&sim, None, json!({})).await;
    let good = open_request(&answer);
    let with = |name: &str, value: &str| {
        let mut request = good.clone();
        request[name] = value.into();
        request
    };
    for request in [
        with("TokenValue", "wrong"),
        with("ClientVersion", "1.2.763.9"),
        with("ClientVersion", "new"),
        with("ClientId", ""),
        with("RequestId", "x"),
        with("MessageSchemaVersion", "2.0"),
        json!({}),
    ] {
        let mut client = Client::upgrade(&answer).await.expect("upgrades");
        client.text(&request).await;
        let Ended::Close(code, reason) = client.end().await else { panic!("{request}") };
        assert!(code == 1008 && !reason.is_empty(), "{request} {code} {reason}");
    }
    let mut client = Client::upgrade(&answer).await.expect("upgrades");
    client.type_line("data before the open").await;
    assert!(matches!(client.end().await, Ended::Close(1008, _)));
    let report = report(&sim, &answer);
    assert_eq!((report.opens.len(), report.state), (8, SessionState::Started));
    assert!(report.opens.iter().all(|open| !open.accepted && !open.refusal.is_empty()));
}

/// Some clients send the session's id, which AWS accepts.
#[tokio::test]
async fn the_client_id_may_be_any_text() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut request = open_request(&answer);
    request["ClientId"] = answer["SessionId"].clone();
    let mut client = Client::upgrade(&answer).await.expect("upgrades");
    client.text(&request).await;
    client.output("").await;
    assert_eq!(report(&sim, &answer).opens[0].client_id, id(&answer));
}

#[tokio::test]
async fn unknown_and_old_urls_are_refused() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let status = |error: Result<Client, Error>| match error {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{:?}", other.err()),
    };
    let mut unknown = answer.clone();
    unknown["StreamUrl"] = answer["StreamUrl"].as_str().expect("url").replace("/sim-", "/xim-").into();
    assert_eq!(status(Client::upgrade(&unknown).await), 404);
    let renewed = resume(&sim, id(&answer)).await;
    assert_eq!(status(Client::upgrade(&answer).await), 403);
    let mut old_token = renewed.clone();
    old_token["TokenValue"] = answer["TokenValue"].clone();
    assert!(matches!(Client::open(&old_token).await.end().await, Ended::Close(1008, _)));
    Client::open(&renewed).await.output("").await;

    let sim = start(Config { require_signed_open: true, ..Config::default() });
    let answer = start_session(&sim, None, json!({})).await;
    assert_eq!(status(Client::upgrade(&answer).await), 403);
}

#[tokio::test]
async fn a_cut_session_continues_where_it_was() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.type_line("x=kept; echo re''ady").await;
    client.output("ready").await;
    for cut in [Cut::Close, Cut::Reset] {
        sim.cut_with(id(&answer), cut);
        let expected = if cut == Cut::Close { Ended::Close(1000, "Bye".to_owned()) } else { Ended::Broken };
        assert_eq!(client.end().await, expected);
        until("disconnected", || report(&sim, &answer).state == SessionState::Disconnected).await;
        let next = client.next;
        client = Client::open(&resume(&sim, id(&answer)).await).await;
        client.next = next;
        client.type_line("echo \"still $x\"").await;
        client.output("still kept").await;
    }
    assert_eq!(report(&sim, &answer).opens.len(), 3);
}

#[tokio::test]
async fn a_second_client_replaces_the_first() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut first = Client::open(&answer).await;
    first.output("").await;
    let mut second = Client::open(&answer).await;
    assert_eq!(first.end().await, Ended::Close(1000, "Bye".to_owned()));
    second.type_line("echo se''cond").await;
    second.output("second").await;
    assert_eq!(report(&sim, &answer).state, SessionState::Connected);
}

#[tokio::test]
async fn terminate_session_ends_it() {
    let sim = start(Config { closed_payload_type_261: true, ..Config::default() });
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.output("").await;
    let (status, body) =
        call(&sim, "AmazonSSM.TerminateSession", json!({ "SessionId": answer["SessionId"] })).await;
    assert_eq!((status, &body["SessionId"]), (200, &answer["SessionId"]));
    let closed = client.frame_of("channel_closed").await;
    assert_eq!(u32::from_be_bytes(closed[112..116].try_into().expect("four")), 261);
    assert!(sim.terminated(id(&answer)));
    assert_eq!(report(&sim, &answer).terminates, 1);
}

#[tokio::test]
async fn a_late_client_learns_the_end() {
    let sim = start(Config::default());
    let answer = start_session(&sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.output("").await;
    sim.cut(id(&answer));
    client.end().await;
    let renewed = resume(&sim, id(&answer)).await;
    sim.close_session(id(&answer), "gone for good");
    until("over", || report(&sim, &answer).state == SessionState::Ended).await;
    let mut client = Client::open(&renewed).await;
    let closed = client.frame_of("channel_closed").await;
    assert!(String::from_utf8_lossy(&closed).contains("gone for good"));
    assert_eq!(client.end().await, Ended::Close(1000, String::new()));
}

#[tokio::test]
async fn dropping_the_simulator_ends_what_it_runs() {
    let sim = start(Config::default());
    let command = json!({ "command": ["echo \"pid=$$;\"; exec sleep 1000"] });
    let answer = start_session(&sim, Some("AWS-StartInteractiveCommand"), command).await;
    let mut client = Client::open(&answer).await;
    client.data(6, HANDSHAKE_RESPONSE.as_bytes()).await.expect("sends");
    let output = client.output(";").await;
    let pid = output.split("pid=").nth(1).and_then(|p| p.split(';').next()).expect("a pid");
    let process = std::path::PathBuf::from(format!("/proc/{pid}/cmdline"));
    until("sleep runs", || std::fs::read(&process).is_ok_and(|c| c.starts_with(b"sleep"))).await;
    drop(sim);
    until("sleep ends", || !std::fs::read(&process).is_ok_and(|c| c.starts_with(b"sleep"))).await;
}

const HANDSHAKE_RESPONSE: &str = r#"{"ClientVersion":"1.2.896.0","ProcessedClientActions":[{"ActionType":"SessionType",
    "ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#;
