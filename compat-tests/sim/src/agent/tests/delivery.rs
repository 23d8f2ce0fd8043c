//! Order, duplicates, acknowledgements and pauses.

use std::time::Duration;

use tokio::time::timeout;

use super::super::codec::Message;
use super::super::{Document, FromGateway};
use super::client::{Client, frame, spec};

fn cat() -> Client {
    // Sizes are always taken, so numbers alone are at stake.
    Client::start(spec(Document::InteractiveCommand {
        command: "stty raw -echo; echo ready; cat".to_owned(),
    }))
}

#[tokio::test]
async fn duplicates_are_acknowledged_again_and_not_handled_again() {
    let mut client = cat();
    client.output_until("ready\n").await;
    let number = client.send(1, b"a").await;
    assert_eq!(client.output_until("a").await, "a");
    assert!(client.acknowledged.remove(&number), "acknowledged before the echo");
    client.raw(frame(number, 1, b"a")).await;
    client.acked(number).await;
    client.send(1, b"b").await;
    assert_eq!(client.output_until("b").await, "b");
    let counters = client.counters();
    assert_eq!((counters.messages_up, counters.duplicates_received), (3, 1));
}

#[tokio::test]
async fn early_messages_are_acknowledged_and_kept() {
    let mut client = cat();
    client.output_until("ready\n").await;
    for number in [2, 1, 3, 2] {
        client.raw(frame(number, 1, number.to_string().as_bytes())).await;
        client.acked(number).await;
    }
    client.raw(frame(0, 1, b"0")).await;
    assert_eq!(client.output_until("3").await, "0123");
    let counters = client.counters();
    assert_eq!((counters.early_received, counters.duplicates_received), (3, 1));
    assert_eq!(counters.acks_sent, 5);
}

#[tokio::test]
async fn damaged_frames_are_dropped() {
    let mut client = cat();
    client.output_until("ready\n").await;
    let mut damaged = frame(0, 1, b"x").to_vec();
    damaged[120] = b'y';
    client.raw(damaged.into()).await;
    client.raw(bytes::Bytes::from_static(b"short")).await;
    client.raw(frame(0, 1, b"z")).await;
    assert_eq!(client.output_until("z").await, "z");
    let counters = client.counters();
    assert_eq!((counters.bad_received, counters.bad_digest_received), (2, 1));
}

#[tokio::test]
async fn a_lost_message_is_sent_again() {
    let mut client = cat();
    let lost = Message::decode(&client.from_agent.recv().await.unwrap()).unwrap();
    let again = Message::decode(&client.from_agent.recv().await.unwrap()).unwrap();
    assert_eq!(lost, again);
    client.output_until("ready\n").await;
    assert!(client.counters().resends_sent >= 1);
}

#[tokio::test]
async fn nothing_is_sent_while_the_client_is_away() {
    let command = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.01; done".to_owned();
    let mut client = Client::start(spec(Document::InteractiveCommand { command }));
    let mut output = client.output_until("5\r\n").await;
    client.to_agent.send(FromGateway::ClientDisconnected).await.unwrap();
    // What was on its way still comes; unacknowledged it would be resent, were it not for the pause.
    let mut pending = Vec::new();
    while let Ok(frame) = timeout(Duration::from_millis(500), client.from_agent.recv()).await {
        pending.push(Message::decode(&frame.unwrap()).unwrap());
    }
    client.to_agent.send(FromGateway::ClientConnected).await.unwrap();
    for message in &pending {
        client.acknowledge(message).await;
        client.skip(message);
        output.push_str(std::str::from_utf8(&message.payload).unwrap());
    }
    output.push_str(&client.output_until("50\r\n").await);
    let expected: String = (0..=50).map(|n| format!("{n}\r\n")).collect();
    // A message may carry several lines.
    assert!(output.starts_with(&expected), "{output:?}");
}

#[tokio::test]
async fn a_blocked_destination_delays_the_acknowledgement() {
    let mut client = Client::start(spec(Document::InteractiveCommand {
        command: "stty raw -echo; echo ready; sleep 1000".to_owned(),
    }));
    client.output_until("ready\n").await;
    // A pty holds a few KiB of unread output.
    let mut sent = 0;
    let blocked = loop {
        let number = client.send(1, &[b'x'; 1024]).await;
        let acked = client.acked(number);
        if timeout(Duration::from_millis(200), acked).await.is_err() {
            break number;
        }
        sent += 1;
        assert!(sent < 1000, "never blocks");
    };
    assert!(!client.acknowledged.contains(&blocked));
}

#[tokio::test]
async fn the_gateway_going_ends_the_session() {
    let mut client = cat();
    client.output_until("ready\n").await;
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    client.to_agent = nobody;
    assert_eq!((&mut client.agent).await.unwrap().output, "");
}
