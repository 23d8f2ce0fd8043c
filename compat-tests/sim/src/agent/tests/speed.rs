//! Speed of the agent without pacing: run with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::super::Generation;
use super::super::codec::{Message, MessageType};
use super::super::smux::{self, PSH, SYN};
use super::client::{Client, forward, frame};

async fn mux(payload: usize) -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = forward(listener.local_addr().unwrap().port(), Generation::V3_3);
    spec.options.payload = payload;
    let mut client = Client::start(spec);
    client.handshake("1.2.896.0").await;
    client.deliver(1, &smux::control(SYN, 3)).await;
    (client, listener)
}

async fn down(payload: usize, total: usize) -> (f64, f64) {
    let (mut client, listener) = mux(payload).await;
    let (mut connection, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let data = vec![0; 1 << 18];
        while connection.write_all(&data).await.is_ok() {}
    });
    let (started, mut bytes, mut messages) = (Instant::now(), 0, 0);
    while bytes < total {
        let message = Message::decode(&client.from_agent.recv().await.unwrap()).unwrap();
        if message.message_type == MessageType::OutputStreamData {
            client.acknowledge(&message).await;
            bytes += message.payload.len();
            messages += 1;
        }
    }
    rates(started.elapsed(), bytes, messages)
}

async fn up(payload: usize, total: usize) -> (f64, f64) {
    let (mut client, listener) = mux(payload).await;
    let (mut connection, _) = listener.accept().await.unwrap();
    tokio::spawn(async move { tokio::io::copy(&mut connection, &mut tokio::io::sink()).await });
    let length = payload - smux::HEADER_LEN;
    let data = [&smux::header(PSH, u16::try_from(length).unwrap(), 3)[..], &vec![0; length]].concat();
    let messages = total / payload;
    let first = client.send(1, &data).await;
    client.acked(first).await;
    let to_agent = client.to_agent.clone();
    let started = Instant::now();
    let last = first + i64::try_from(messages).unwrap();
    tokio::spawn(async move {
        for number in first + 1..=last {
            let event = super::super::FromGateway::Frame(frame(number, 1, &data));
            to_agent.send(event).await.unwrap();
        }
    });
    client.acked(last).await;
    rates(started.elapsed(), messages * payload, messages)
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn rates(elapsed: Duration, bytes: usize, messages: usize) -> (f64, f64) {
    (bytes as f64 / 1e6 / elapsed.as_secs_f64(), messages as f64 / elapsed.as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn unpaced() {
    for (payload, total) in [(16 * 1024, 400 << 20), (1024, 100 << 20), (64, 5 << 20)] {
        let (megabytes, messages) = down(payload, total).await;
        println!("down {payload:5}: {megabytes:6.1} MB/s, {messages:8.0} messages/s");
        let (megabytes, messages) = up(payload, total).await;
        println!("up   {payload:5}: {megabytes:6.1} MB/s, {messages:8.0} messages/s");
    }
}
