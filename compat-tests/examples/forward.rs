//! Forwards a local port with the library alone, without the `session-manager-plugin` program.
//!
//! ```text
//! cargo run -p ssm-sim &                      # or AWS itself, without the endpoint below
//! AWS_ENDPOINT_URL=http://127.0.0.1:PORT cargo run --example forward -- i-0123456789abcdef0 80 8080
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use serde_json::json;
use session_manager_plugin::aws::{self, AwsContext, StartSessionOutput};
use session_manager_plugin::link::{self, Link, LinkEvent, Network, Target};
use session_manager_plugin::protocol::{Event, Flag, Input, SessionKind};
use session_manager_plugin::smux::{self, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the tests include this file for the function below")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [target, port, local_port] = words.as_slice() else {
        anyhow::bail!("usage: forward <target> <port> <local port>");
    };
    let aws = aws::Client::new(AwsContext::default());
    let request = json!({
        "Target": target,
        "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": [port], "localPortNumber": [local_port]},
    });
    let opened = aws.start(&request).await?;
    let listener = TcpListener::bind(("127.0.0.1", local_port.parse()?)).await.context("listen")?;
    println!("{} goes to port {port} of {target}", listener.local_addr()?);
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    forward(opened, Some(Arc::new(aws)), listener, interrupted).await
}

/// Hands the connections of `listener` to an opened port session until `stop` resolves or the session ends.
/// With `aws` the connection is signed, and taken up again with a new token when it is lost.
pub async fn forward(
    opened: StartSessionOutput,
    aws: Option<Arc<aws::Client>>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let network = Arc::new(Network::from_env());
    let url = network.stream_url(&opened.stream_url)?;
    let token = Arc::new(opened.token);
    let target = Target { session_id: opened.session_id, url, token, network, aws, sign_first: true };
    let mut link = Link::new(link::Config::default(), target);
    wait_for_port(&mut link).await?;

    let mut config = smux::Config::new(smux::Role::Client);
    config.keepalive = (!link.capabilities().smux_keepalive_off).then(smux::KeepAlive::default);
    let mut mux = smux::Session::new(config, Instant::now());
    let mut writers: BTreeMap<StreamId, OwnedWriteHalf> = BTreeMap::new();
    let (from_local, mut to_remote) = mpsc::channel::<(StreamId, Bytes)>(16);
    let mut stop = std::pin::pin!(stop);
    loop {
        while link.wants_input()
            && let Some(bytes) = mux.poll_transmit(link.input_room())
        {
            link.send(Input::Bytes(bytes));
        }
        let timeout = mux.poll_timeout().map(|(at, _)| at.into());
        tokio::select! {
            event = link.next(true) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => mux.handle_bytes(Instant::now(), bytes)?,
                LinkEvent::Channel(Event::Closed(_)) => return Ok(()),
                LinkEvent::GaveUp(reason) => return Err(reason.into()),
                _ => {}
            },
            accepted = listener.accept() => {
                let (reader, writer) = TcpStream::into_split(accepted?.0);
                let id = mux.open()?;
                writers.insert(id, writer);
                tokio::spawn(read(reader, id, from_local.clone()));
            }
            // One chunk at a time: what is not sent yet stays with its sender.
            Some((id, bytes)) = to_remote.recv(), if !mux.has_transmit() => match bytes.len() {
                0 => mux.finish(id),
                _ => mux.send(id, &bytes)?,
            },
            () = sleep_until(timeout) => mux.handle_timeout(Instant::now())?,
            () = &mut stop => break,
        }
        while let Some(event) = mux.poll_event() {
            match event {
                smux::Event::Data(id, bytes) => {
                    if let Some(writer) = writers.get_mut(&id)
                        && writer.write_all(&bytes).await.is_err()
                    {
                        mux.reset(id);
                        writers.remove(&id);
                    }
                }
                smux::Event::Fin(id) => {
                    mux.close(id);
                    writers.remove(&id);
                }
                smux::Event::Accepted(_) => {}
            }
        }
    }
    link.send(Input::Flag(Flag::TerminateSession));
    let _ = tokio::time::timeout(GOODBYE, async { while link.next_until_drained().await.is_some() {} }).await;
    link.close().await;
    Ok(())
}

async fn wait_for_port(link: &mut Link) -> anyhow::Result<()> {
    loop {
        match link.next(true).await {
            LinkEvent::Channel(Event::Ready(SessionKind::Port(_))) => break,
            LinkEvent::Channel(Event::Ready(_)) => anyhow::bail!("not a port session"),
            LinkEvent::Channel(Event::Closed(reason)) => anyhow::bail!("the session has ended: {reason}"),
            LinkEvent::GaveUp(reason) => return Err(reason.into()),
            _ => {}
        }
    }
    anyhow::ensure!(link.capabilities().multiplexing, "the agent is too old for more than one connection");
    Ok(())
}

/// Reads a local connection; an empty chunk is its end.
async fn read(mut reader: OwnedReadHalf, id: StreamId, chunks: mpsc::Sender<(StreamId, Bytes)>) {
    loop {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        let is_end = !matches!(reader.read_buf(&mut buffer).await, Ok(1..));
        if chunks.send((id, buffer.freeze())).await.is_err() || is_end {
            return;
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

const GOODBYE: Duration = Duration::from_secs(2);
