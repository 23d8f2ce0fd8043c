//! Multiplexed port sessions: each stream a TCP connection to the destination.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::destination::{Destinations, Socket};
use super::input::{self, Handled};
use super::output::Output;
use super::send::Sender;
use super::smux::{self, KeepAlive, Server, Stream, Streams};
use super::{AgentOptions, payload_type};

/// The client's side of the smux server.
pub(super) struct Input {
    server: Server,
    broken: Option<oneshot::Sender<()>>,
}

impl Input {
    /// Starts the server. `keep_alive`: the client is so old that smux has to find out whether it is alive.
    pub(super) fn start(
        destination: (String, u16),
        keep_alive: bool,
        options: &AgentOptions,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Input {
        let (accepted, waiting) = mpsc::channel(smux::ACCEPT_BACKLOG);
        let (frames, to_client) = mpsc::channel(FRAMES);
        let (broken, breaks) = oneshot::channel();
        let streams = Arc::new(Streams::default());
        let server = Server::new(accepted, Arc::clone(&streams));
        if keep_alive {
            let (keep_alive, frames) = (server.keep_alive(), frames.clone());
            tasks.spawn(self::keep_alive(keep_alive, frames));
        }
        let output = Output::new(sender, payload_type::OUTPUT, options);
        tasks.spawn(pump(to_client, output, options.payload.max(1)));
        let network = options.destinations.clone();
        let serve = serve(waiting, (network, destination), frames, streams, Arc::clone(sender));
        tasks.spawn(async move {
            tokio::select! {
                () = serve => {}
                _ = breaks => {}
            }
            String::new()
        });
        Input { server, broken: Some(broken) }
    }

    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        match payload_type {
            payload_type::OUTPUT => {
                if self.server.receive(payload).await.is_err()
                    && let Some(broken) = self.broken.take()
                {
                    // Fails when the session is ending anyway.
                    let _ = broken.send(());
                }
                Handled::Taken
            }
            payload_type::FLAG if input::flag(&payload) == Some(input::TERMINATE_SESSION) => {
                Handled::Terminate
            }
            _ => Handled::Taken,
        }
    }
}

/// Connects one stream after the other (so does the agent: an address that does not answer holds up all that come
/// after it), and lets the connections run.
async fn serve(
    mut waiting: mpsc::Receiver<Stream>,
    (network, destination): (Destinations, (String, u16)),
    frames: mpsc::Sender<Bytes>,
    streams: Arc<Streams>,
    sender: Arc<Sender>,
) {
    let mut connections = JoinSet::new();
    while let Some(stream) = waiting.recv().await {
        while connections.try_join_next().is_some() {}
        match network.connect(&destination).await {
            Ok(connection) => {
                connections.spawn(connected(stream, connection, frames.clone(), Arc::clone(&streams)));
            }
            Err(error) => {
                tracing::debug!(%error, "failed to connect to the destination");
                let flag = input::CONNECT_TO_PORT_ERROR.to_be_bytes();
                if sender.send(payload_type::FLAG, &flag).await.is_err() {
                    return;
                }
                close(stream.id, &frames, &streams).await;
            }
        }
    }
}

/// One connection, until either side ends. The client's FIN closes the whole connection as soon as its data is
/// written, whatever the destination still has to say; the destination's end drops what is still to be written.
async fn connected(
    mut stream: Stream,
    connection: Socket,
    frames: mpsc::Sender<Bytes>,
    streams: Arc<Streams>,
) {
    let (finished, finish) = oneshot::channel();
    let id = stream.id;
    let upwards = async {
        write(&mut stream, &connection).await;
        let _ = finished.send(());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = upwards => {}
        () = read(&connection, id, finish, &frames) => {}
    }
    drop(connection);
    close(id, &frames, &streams).await;
}

async fn write(stream: &mut Stream, to_destination: &Socket) {
    while let Some(data) = stream.data.recv().await {
        if to_destination.write_all(&data).await.is_err() {
            return;
        }
    }
}

/// Reads until the destination ends or the client's side has; what is read by then is still sent.
async fn read(
    from_destination: &Socket,
    stream: u32,
    mut finish: oneshot::Receiver<()>,
    frames: &mpsc::Sender<Bytes>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BUFFER);
        buffer.extend_from_slice(&[0; smux::HEADER_LEN]);
        let read = tokio::select! {
            read = from_destination.read_buf(&mut buffer, smux::MAX_FRAME) => read,
            _ = &mut finish => return,
        };
        let length = match read {
            Ok(length @ 1..) => u16::try_from(length).unwrap_or(u16::MAX),
            Ok(0) | Err(_) => return,
        };
        buffer[..smux::HEADER_LEN].copy_from_slice(&smux::header(smux::PSH, length, stream));
        if frames.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
}

async fn close(stream: u32, frames: &mpsc::Sender<Bytes>, streams: &Streams) {
    streams.close(stream);
    // Fails when the session is ending: it is not read then.
    let _ = frames.send(smux::control(smux::FIN, stream)).await;
}

/// Sends the smux frames as a byte stream, cut anywhere.
async fn pump(mut frames: mpsc::Receiver<Bytes>, mut output: Output, payload: usize) -> String {
    let mut message = BytesMut::with_capacity(payload);
    let mut frame = Bytes::new();
    loop {
        output.active().await;
        if frame.is_empty() {
            match frames.recv().await {
                Some(next) => frame = next,
                None => return String::new(),
            }
        }
        let sent = if frame.len() >= payload {
            output.bytes(&frame.split_to(payload)).await
        } else {
            message.clear();
            message.extend_from_slice(&frame);
            frame.clear();
            while message.len() < payload
                && let Ok(next) = frames.try_recv()
            {
                frame = next;
                message.extend_from_slice(&frame.split_to(frame.len().min(payload - message.len())));
            }
            output.bytes(&message).await
        };
        if sent.is_err() {
            return String::new();
        }
    }
}

async fn keep_alive(keep_alive: KeepAlive, frames: mpsc::Sender<Bytes>) -> String {
    let (mut ping, mut check) = (interval(KEEP_ALIVE_INTERVAL), interval(KEEP_ALIVE_TIMEOUT));
    for ticker in [&mut ping, &mut check] {
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticker.tick().await;
    }
    loop {
        tokio::select! {
            _ = ping.tick() => {
                // Full: so much is on its way to the client that no ping is needed.
                let _ = frames.try_send(smux::control(smux::NOP, 0));
            }
            _ = check.tick() => {
                if keep_alive.dead() {
                    return String::new();
                }
            }
        }
    }
}

/// Frames that wait for the pump: about as much as the agent's UNIX socket holds.
const FRAMES: usize = 8;
/// Size of a connection's read buffer, in bytes.
const READ_BUFFER: usize = 2 * smux::MAX_FRAME;
/// smux source: `KeepAliveInterval`.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// smux source: `KeepAliveTimeout`.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
