//! A running simulator.

use std::time::Duration;

use crate::config::{Config, Cut, Faults, ResumePolicy, Way};
use crate::report::{RequestCounts, SessionReport};

/// A running simulator with its own runtime on its own threads. Dropping it ends everything it has started:
/// connections, agents, and the shells and commands they run.
pub struct Sim {}

impl Sim {
    /// Starts a simulator on the loopback interface.
    ///
    /// # Errors
    /// When the port cannot be bound, or the runtime or a certificate cannot be made.
    pub fn start(config: Config) -> anyhow::Result<Sim> {
        let _ = config;
        anyhow::bail!("not there yet")
    }

    /// `http://127.0.0.1:PORT` (`https://localhost:PORT` with TLS), for `--endpoint-url` of the AWS CLI.
    #[must_use]
    pub fn endpoint(&self) -> String {
        String::new()
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        0
    }

    /// The certificate authority in PEM form, when started with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        None
    }

    /// All sessions since the start, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionReport> {
        Vec::new()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<SessionReport> {
        self.sessions().into_iter().find(|s| s.id == id)
    }

    /// API requests so far.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        RequestCounts::default()
    }

    /// Whether the session has ended because the client asked for it through TerminateSession.
    #[must_use]
    pub fn terminated(&self, id: &str) -> bool {
        self.session(id).is_some_and(|s| s.terminated)
    }

    /// Waits until `condition` holds for the sessions; false when it did not within `timeout`. Blocks the thread.
    pub fn wait_for(&self, timeout: Duration, condition: impl FnMut(&[SessionReport]) -> bool) -> bool {
        let _ = (timeout, condition);
        false
    }

    /// Sends `pause_publication` (`on`) or `start_publication` to the session's client.
    pub fn pause(&self, id: &str, on: bool) {
        let _ = (id, on);
    }

    /// Closes the session's websocket with 1000 "Bye".
    pub fn cut(&self, id: &str) {
        self.cut_with(id, Cut::Close);
    }

    /// Cuts the session's websocket in the given way.
    pub fn cut_with(&self, id: &str, cut: Cut) {
        let _ = (id, cut);
    }

    /// Stops carrying frames of the session one way or both for a while, as a network that drops everything. The
    /// connection stays.
    pub fn stall(&self, id: &str, way: Way, time: Duration) {
        let _ = (id, way, time);
    }

    /// Resets all websockets, and every new connection for this time.
    pub fn outage(&self, time: Duration) {
        let _ = time;
    }

    /// Ends the session from the remote side: its agent is stopped, and `channel_closed` says `output`.
    pub fn close_session(&self, id: &str, output: &str) {
        let _ = (id, output);
    }

    /// Changes what the link does, for all sessions, from now on.
    pub fn set_faults(&self, faults: Faults) {
        let _ = faults;
    }

    /// Changes what ResumeSession answers, from now on.
    pub fn set_resume(&self, policy: ResumePolicy) {
        let _ = policy;
    }

    /// Sends bytes as one binary frame to the session's client, whatever they are.
    pub fn inject(&self, id: &str, frame: &[u8]) {
        let _ = (id, frame);
    }
}
