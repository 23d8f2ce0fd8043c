//! Port sessions.

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::smux::{self, FIN, PSH, SYN};
use super::super::{Document, Generation};
use super::client::{Client, forward, properties, spec};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port without a listener, which no other program is given while the socket lives.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    // So that a listener may join it later.
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn push(stream: u32, data: &[u8]) -> Vec<u8> {
    [&smux::header(PSH, u16::try_from(data.len()).unwrap(), stream)[..], data].concat()
}

/// One smux frame from the agent's byte stream: command, stream, data.
async fn frame(client: &mut Client, stream: &mut Vec<u8>) -> (u8, u32, Vec<u8>) {
    loop {
        if let Some(&[1, command, low, high, a, b, c, d]) = stream.first_chunk() {
            let end = smux::HEADER_LEN + usize::from(u16::from_le_bytes([low, high]));
            if stream.len() >= end {
                let data = stream[smux::HEADER_LEN..end].to_vec();
                stream.drain(..end);
                return (command, u32::from_le_bytes([a, b, c, d]), data);
            }
        }
        let (payload_type, payload) = client.message().await.unwrap();
        assert_eq!(payload_type, 1);
        stream.extend(payload);
    }
}

async fn read_exactly(connection: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    connection.read_exact(&mut data).await.unwrap();
    data
}

#[tokio::test]
async fn streams_are_connections() {
    let (listener, port) = listener().await;
    let mut client = Client::start(forward(port, Generation::V3_3));
    client.handshake("1.2.896.0").await;
    let mut bytes = Vec::new();

    client.deliver(1, &[smux::control(SYN, 3).to_vec(), push(3, b"ping")].concat()).await;
    let (mut first, _) = listener.accept().await.unwrap();
    assert_eq!(read_exactly(&mut first, 4).await, b"ping");
    client.deliver(1, &smux::control(SYN, 5)).await;
    let (mut second, _) = listener.accept().await.unwrap();
    second.write_all(b"hello").await.unwrap();
    assert_eq!(frame(&mut client, &mut bytes).await, (PSH, 5, b"hello".to_vec()));
    first.write_all(b"pong").await.unwrap();
    assert_eq!(frame(&mut client, &mut bytes).await, (PSH, 3, b"pong".to_vec()));

    // The destination ends: FIN. The client ends: the agent closes the whole connection.
    drop(second);
    assert_eq!(frame(&mut client, &mut bytes).await, (FIN, 5, Vec::new()));
    client.send(1, &[push(3, b"last"), smux::control(FIN, 3).to_vec()].concat()).await;
    assert_eq!(frame(&mut client, &mut bytes).await, (FIN, 3, Vec::new()));
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last");
    // Late data for a closed stream is dropped.
    client.send(1, &push(3, b"late")).await;

    let flag = client.send(10, &2u32.to_be_bytes()).await;
    let (_, end) = client.rest().await;
    assert!(client.acknowledged.contains(&flag));
    assert_eq!(end.output, "");
}

#[tokio::test]
async fn megabytes_go_both_ways() {
    let (listener, port) = listener().await;
    let mut spec = forward(port, Generation::V3_3);
    spec.options.payload = 16 * 1024;
    let mut client = Client::start(spec);
    client.handshake("1.2.896.0").await;
    client.deliver(1, &smux::control(SYN, 3)).await;
    let (connection, _) = listener.accept().await.unwrap();
    let (mut reader, mut writer) = connection.into_split();
    let echo = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });

    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let stream: Vec<u8> = data.chunks(32 * 1024).flat_map(|piece| push(3, piece)).collect();
    let mut pieces = stream.chunks(10_007);
    let (mut back, mut bytes) = (Vec::new(), Vec::new());
    while back.len() < data.len() {
        if let Some(piece) = pieces.next() {
            client.send(1, piece).await;
        }
        while back.len() < data.len() && (pieces.len() == 0 || !client.from_agent.is_empty()) {
            let (command, stream, data) = frame(&mut client, &mut bytes).await;
            assert_eq!((command, stream), (PSH, 3));
            back.extend(data);
            if pieces.len() > 0 {
                break;
            }
        }
    }
    assert!(back == data);
    echo.abort();
}

#[tokio::test]
async fn a_refused_connection_is_reported_and_its_stream_closed() {
    let (_closed, port) = closed_port();
    let mut client = Client::start(forward(port, Generation::V3_3));
    client.handshake("1.2.896.0").await;
    client.send(1, &smux::control(SYN, 3)).await;
    assert_eq!(client.message().await.unwrap(), (10, 3u32.to_be_bytes().to_vec()));
    let mut bytes = Vec::new();
    assert_eq!(frame(&mut client, &mut bytes).await, (FIN, 3, Vec::new()));
}

#[tokio::test]
async fn an_unread_destination_stalls_the_session() {
    let (listener, port) = listener().await;
    let mut client = Client::start(forward(port, Generation::V3_3));
    client.handshake("1.2.896.0").await;
    client.deliver(1, &smux::control(SYN, 3)).await;
    let (mut connection, _) = listener.accept().await.unwrap();
    let frame = Bytes::from(push(3, &[0; 32 * 1024]));
    let mut sent: usize = 0;
    let blocked = loop {
        let number = client.send(1, &frame).await;
        let acked = client.acked(number);
        if tokio::time::timeout(std::time::Duration::from_secs(1), acked).await.is_err() {
            break number;
        }
        sent += frame.len();
        assert!(sent < 100 << 20, "never blocks");
    };
    assert!(sent >= 4 << 20, "{sent}");
    // The destination reads again, and everything continues.
    let read = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 20];
        while connection.read(&mut buffer).await.unwrap() > 0 {}
    });
    client.acked(blocked).await;
    read.abort();
}

#[tokio::test(start_paused = true)]
async fn only_old_clients_get_keep_alives() {
    for (version, expected) in [("1.2.331.0", true), ("1.2.331.1", false)] {
        let mut client = Client::start(forward(1, Generation::V3_3));
        client.handshake(version).await;
        let message = tokio::time::timeout(std::time::Duration::from_secs(15), client.message()).await;
        let nop = smux::control(smux::NOP, 0).to_vec();
        assert_eq!(message.ok(), expected.then_some(Some((1, nop))));
        if expected {
            // Nothing from the client for 30 s: it is dead.
            let (_, end) = client.rest().await;
            assert_eq!(end.output, "");
        }
    }
}

#[tokio::test]
async fn old_agents_carry_one_connection_after_the_other() {
    for generation in [Generation::V2_3, Generation::V3_0] {
        let (listener, port) = listener().await;
        let mut client = Client::start(forward(port, generation));
        client.handshake("1.2.896.0").await;
        // Connected before there is any data.
        let (mut first, _) = listener.accept().await.unwrap();
        client.deliver(1, b"one").await;
        assert_eq!(read_exactly(&mut first, 3).await, b"one");
        first.write_all(b"uno").await.unwrap();
        assert_eq!(client.message().await.unwrap(), (1, b"uno".to_vec()));

        // The client disconnects; its next data connects again.
        client.deliver(10, &1u32.to_be_bytes()).await;
        assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
        client.deliver(1, b"two").await;
        let (mut second, _) = listener.accept().await.unwrap();
        assert_eq!(read_exactly(&mut second, 3).await, b"two");

        // The destination closes; nothing is said, and the next data connects again.
        drop(second);
        let mut third = loop {
            client.deliver(1, b"three").await;
            let accept = listener.accept();
            if let Ok(accepted) = tokio::time::timeout(std::time::Duration::from_millis(50), accept).await {
                break accepted.unwrap().0;
            }
        };
        assert_eq!(read_exactly(&mut third, 5).await, b"three");

        client.send(10, &2u32.to_be_bytes()).await;
        if generation == Generation::V2_3 {
            // The flag is not known.
            client.deliver(1, b"more").await;
            assert_eq!(read_exactly(&mut third, 4).await, b"more");
        } else {
            assert_eq!(client.rest().await.1.output, "");
        }
    }
}

#[tokio::test]
async fn a_destination_refused_at_the_start_ends_a_basic_session() {
    let (_closed, port) = closed_port();
    let mut client = Client::start(forward(port, Generation::V3_0));
    client.handshake("1.2.896.0").await;
    let (_, end) = client.rest().await;
    assert_eq!(
        end.output,
        format!(
            "Unable to connect to specified port: dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
}

#[tokio::test]
async fn an_ssh_session_ends_with_its_connection() {
    let (listener, port) = listener().await;
    let properties = properties(json!({"portNumber": port.to_string()}));
    let mut client = Client::start(spec(Document::Ssh { port, properties }));
    let (request, _) = client.handshake("1.2.896.0").await;
    let parameters = &request["RequestedClientActions"][0]["ActionParameters"];
    assert_eq!(parameters["Properties"], json!({"portNumber": port.to_string()}));
    let (mut connection, _) = listener.accept().await.unwrap();
    client.deliver(1, b"SSH-2.0-test\r\n").await;
    assert_eq!(read_exactly(&mut connection, 14).await, b"SSH-2.0-test\r\n");
    connection.write_all(b"\xff\x00\xfe").await.unwrap();
    drop(connection);
    let (rest, end) = client.rest().await;
    assert_eq!((rest, end.output.as_str()), (vec![(1, b"\xff\x00\xfe".to_vec())], ""));
}

/// Since 3.3.4851.0; the document without `host` still leads to the instance itself.
#[tokio::test]
async fn newer_agents_forward_to_loopback_only_without_a_host() {
    let (_listener, port) = listener().await;
    for (version, host, forbidden) in [
        ("3.3.4850.9", Some("localhost"), false),
        ("3.3.4851.0", Some("localhost"), true),
        ("3.4.0.0", Some("127.0.0.1"), true),
        ("3.4.0.0", None, false),
    ] {
        let mut spec = forward(port, Generation::V3_3);
        spec.options.version = Some(version.to_owned());
        if let (Some(name), Document::PortForward { host, properties, .. }) = (host, &mut spec.document) {
            name.clone_into(host);
            properties.insert("host".to_owned(), name.into());
        }
        let mut client = Client::start(spec);
        client.handshake("1.2.896.0").await;
        if !forbidden {
            client.send(10, &2u32.to_be_bytes()).await;
        }
        let (_, end) = client.rest().await;
        let expected = match host {
            Some(host) if forbidden => format!("Forwarding to IP address {host} is forbidden."),
            _ => String::new(),
        };
        assert_eq!(end.output, expected, "{version} {host:?}");
    }
}
