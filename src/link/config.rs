//! Configuration of a link.

use std::time::Duration;

use crate::protocol;
use crate::wire_log::Recording;

/// Configuration of a link. `Default` is what the program uses, and stays under the service's limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The limits of the data channel.
    pub channel: protocol::Config,
    /// Time limit of the first opening, all attempts included.
    pub open_timeout: Duration,
    /// Time limit for restoring a lost connection.
    pub reconnect_timeout: Duration,
    /// Time between websocket pings. A ping without any answer until the next is due means a dead socket.
    pub ping_interval: Duration,
    /// Recording of the frames.
    pub(crate) recording: Option<Recording>,
}

impl Config {
    /// A network that blocks the connection looks like a hang (smp#68).
    pub const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
    /// The official plugin tries five times, which is too few (smp#135, smp#136).
    pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(300);
    /// The official plugin's five minutes are too long for many proxies (smp#15).
    pub const PING_INTERVAL: Duration = Duration::from_secs(30);
}

impl Default for Config {
    fn default() -> Config {
        Config {
            channel: protocol::Config::default(),
            open_timeout: Config::OPEN_TIMEOUT,
            reconnect_timeout: Config::RECONNECT_TIMEOUT,
            ping_interval: Config::PING_INTERVAL,
            recording: None,
        }
    }
}
