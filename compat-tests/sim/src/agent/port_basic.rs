//! Port sessions with one connection at a time: older agents, and SSH documents.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::destination::{Destinations, Socket};
use super::input::{self, Handled};
use super::output::Output;
use super::send::Sender;
use super::{AgentOptions, payload_type, version};

/// The client's side of the connection.
pub(super) struct Input {
    shared: Arc<Shared>,
    reconnected: mpsc::Sender<Option<Arc<Open>>>,
    /// True if the flag TerminateSession is known.
    terminates: bool,
}

struct Shared {
    network: Destinations,
    destination: (String, u16),
    connection: Mutex<Connection>,
}

/// A connection to the destination.
struct Open {
    stream: Socket,
    /// The client has disconnected.
    disconnect: Notify,
}

/// The state both sides share.
enum Connection {
    /// Not yet there: data is refused, and sent again by the client.
    Connecting,
    Open(Arc<Open>),
    /// Closed; what comes before the reading side has noticed is refused.
    Closed,
    /// Closed; the next data opens a new one.
    Reconnect,
}

impl Input {
    /// Connects at once. `local`: `LocalPortForwarding`, which survives the end of its connection.
    pub(super) fn start(
        destination: (String, u16),
        local: bool,
        options: &AgentOptions,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Input {
        let network = options.destinations.clone();
        let shared = Shared { network, destination, connection: Mutex::new(Connection::Connecting) };
        let shared = Arc::new(shared);
        let (reconnected, connections) = mpsc::channel(1);
        let output = Output::new(sender, payload_type::OUTPUT, options);
        tasks.spawn(run(Arc::clone(&shared), local, connections, output));
        let terminates = version::compare(options.agent_version(), input::LAST_WITHOUT_TERMINATE).is_gt();
        Input { shared, reconnected, terminates }
    }

    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        match payload_type {
            payload_type::OUTPUT => self.data(&payload).await,
            payload_type::FLAG => match input::flag(&payload) {
                Some(input::DISCONNECT_TO_PORT) => {
                    let mut connection = self.shared.lock();
                    if let Connection::Open(open) = &*connection {
                        open.disconnect.notify_one();
                        *connection = Connection::Closed;
                    }
                    Handled::Taken
                }
                Some(input::TERMINATE_SESSION) if self.terminates => Handled::Terminate,
                _ => Handled::Taken,
            },
            _ => Handled::Taken,
        }
    }

    async fn data(&self, payload: &[u8]) -> Handled {
        let state = match &*self.shared.lock() {
            Connection::Connecting | Connection::Closed => return Handled::Refused,
            Connection::Open(connection) => Some(Arc::clone(connection)),
            Connection::Reconnect => None,
        };
        let connection = match state {
            Some(connection) => connection,
            None => {
                let connection = self.shared.connect().await.ok();
                // Fails when the session is ending anyway.
                let _ = self.reconnected.send(connection.clone()).await;
                match connection {
                    Some(connection) => connection,
                    None => return Handled::Refused,
                }
            }
        };
        match connection.stream.write_all(payload).await {
            Ok(()) => Handled::Taken,
            Err(error) => {
                tracing::debug!(%error, "failed to write to the destination");
                Handled::Refused
            }
        }
    }
}

impl Shared {
    async fn connect(&self) -> io::Result<Arc<Open>> {
        let stream = self.network.connect(&self.destination).await?;
        let connection = Arc::new(Open { stream, disconnect: Notify::new() });
        *self.lock() = Connection::Open(Arc::clone(&connection));
        Ok(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Connects and reads until the session ends; gives its output.
async fn run(
    shared: Arc<Shared>,
    local: bool,
    mut connections: mpsc::Receiver<Option<Arc<Open>>>,
    mut output: Output,
) -> String {
    let mut connection = match shared.connect().await {
        Ok(connection) => connection,
        Err(error) => return unable_to_connect(&shared.destination, &error),
    };
    let mut buffer = output.buffer();
    loop {
        if read(&connection, &mut output, &mut buffer).await.is_err() {
            return String::new();
        }
        drop(connection);
        if !local {
            *shared.lock() = Connection::Closed;
            return String::new();
        }
        *shared.lock() = Connection::Reconnect;
        match connections.recv().await.flatten() {
            Some(next) => connection = next,
            None => return String::new(),
        }
    }
}

/// Reads until the connection ends, by the destination or by the client; an error when the session is over.
async fn read(connection: &Open, output: &mut Output, buffer: &mut [u8]) -> Result<(), super::send::Gone> {
    loop {
        output.active().await;
        let read = tokio::select! {
            biased;
            () = connection.disconnect.notified() => return Ok(()),
            read = connection.stream.read(buffer) => read,
        };
        match read {
            Ok(read @ 1..) => output.bytes(buffer.get(..read).unwrap_or_default()).await?,
            Ok(0) | Err(_) => return Ok(()),
        }
    }
}

/// The agent's words, with Go's for the reason.
fn unable_to_connect((host, port): &(String, u16), error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    };
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    format!("Unable to connect to specified port: dial tcp {host}:{port}: {reason}")
}
