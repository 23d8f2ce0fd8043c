//! A running simulator.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::background::{listen, wait_and_stop};
use crate::config::{Config, Credentials, Cut, Faults, ResumePolicy, Way};
use crate::instance::PushedKey;
use crate::report::{RequestCounts, SessionReport};
use crate::service::Service;
use crate::session::Session;
use crate::{api, frame, server, tls};

/// A running simulator with its own runtime on its own threads. Dropping it ends everything it has started:
/// connections, agents, and the shells and commands they run.
pub struct Sim {
    service: Arc<Service>,
    handle: Handle,
    port: u16,
    ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sim {
    /// Starts a simulator on the loopback interface.
    ///
    /// # Errors
    /// When the port cannot be bound, or the runtime or a certificate cannot be made.
    pub fn start(config: Config) -> anyhow::Result<Sim> {
        let (runtime, listener, port) = listen("ssm-sim", config.port, WORKERS)?;
        let (ca_pem, acceptor) =
            if config.tls { Some(tls::certificates(&["localhost", "127.0.0.1"])?) } else { None }.unzip();
        let service = Arc::new(Service::new(config, port)?);
        let handle = runtime.handle().clone();
        handle.spawn(server::serve(Arc::clone(&service), listener, acceptor));
        let (stop, stopped) = oneshot::channel();
        // A runtime may not be dropped in an asynchronous context, but a `Sim` may: so this thread does it.
        let thread = std::thread::Builder::new()
            .name("ssm-sim-stop".to_owned())
            .spawn(move || wait_and_stop(runtime, stopped))
            .context("thread")?;
        Ok(Sim { service, handle, port, ca_pem, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT` (`https:` with TLS), for `--endpoint-url` of the AWS CLI.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.service.config.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority in PEM form, when started with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// All sessions since the start, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionReport> {
        self.service.reports()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<SessionReport> {
        self.service.session(id).map(|s| s.report())
    }

    /// API requests so far.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.service.requests()
    }

    /// Returns whether the session has ended because the client asked for it through TerminateSession.
    #[must_use]
    pub fn terminated(&self, id: &str) -> bool {
        self.session(id).is_some_and(|s| s.terminated)
    }

    /// Time without a request and without a connected client.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.service.idle()
    }

    /// Waits until `condition` holds for the sessions; false when it did not within `timeout`. Blocks the thread.
    pub fn wait_for(&self, timeout: Duration, mut condition: impl FnMut(&[SessionReport]) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if condition(&self.sessions()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends `pause_publication` (`on`) or `start_publication` to the session's client.
    pub fn pause(&self, id: &str, on: bool) {
        self.deliver(id, frame::publication(on));
    }

    /// Closes the session's websocket with 1000 "Bye".
    pub fn cut(&self, id: &str) {
        self.cut_with(id, Cut::Close);
    }

    /// Cuts the session's websocket in the given way.
    pub fn cut_with(&self, id: &str, cut: Cut) {
        if let Some(session) = self.service.session(id) {
            session.cut(cut);
        }
    }

    /// Carries no frame of the session one way or both for a while: nothing is lost, the connection stays, and
    /// the sender feels it once the buffers between are full.
    pub fn stall(&self, id: &str, way: Way, time: Duration) {
        if let Some(session) = self.service.session(id) {
            session.stall(way, time);
        }
    }

    /// Resets all websockets, and every new connection for this time.
    pub fn outage(&self, time: Duration) {
        self.service.outage(time);
    }

    /// Ends the session from the remote side: its agent is stopped, and `channel_closed` says `output`.
    pub fn close_session(&self, id: &str, output: &str) {
        let output = output.to_owned();
        self.with(id, |session| async move { session.end(&output, false).await });
    }

    /// Changes what the link does, for all sessions, from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.service.faults.send_replace(faults);
    }

    /// Changes where stream URLs lead: for a front whose port is known only after this simulator's. See
    /// [`Config::stream_base`].
    pub fn set_stream_base(&self, base: &str) {
        self.service.set_stream_base(base);
    }

    /// Changes what ResumeSession answers, from now on.
    pub fn set_resume(&self, policy: ResumePolicy) {
        self.service.set_resume(policy);
    }

    /// Refuses each StartSession with an error of this kind from now on, such as `TargetNotConnected`; `None` accepts them
    /// again.
    pub fn refuse_starts(&self, kind: Option<&'static str>) {
        self.service.set_refusal(kind.map(|kind| (kind, format!("{kind}, says the simulator"))));
    }

    /// Denies an action such as `ssm:StartSession` from now on, or allows it again.
    pub fn deny(&self, action: &str, is_denied: bool) {
        self.service.set_denied(action, is_denied);
    }

    /// The public keys that SendSSHPublicKey has pushed, oldest first.
    #[must_use]
    pub fn pushed_keys(&self) -> Vec<PushedKey> {
        self.service.pushed_keys()
    }

    /// Sets the address that the instance resolves a name to, for sessions that start from now on.
    pub fn set_host(&self, name: &str, address: &str) {
        self.service.set_host(name, address);
    }

    /// An additional long-term key pair that is accepted alongside the configured one.
    pub fn add_credentials(&self, access_key: &str, secret_key: &str) -> Credentials {
        self.service.identities.add(access_key, secret_key)
    }

    /// Refuses an access key or an SSO access token as expired, from now on.
    pub fn revoke(&self, key: &str) {
        self.service.identities.revoke(key);
    }

    /// StartSession without a request over the network, and so without a signature: the answer's JSON.
    ///
    /// # Errors
    /// As the API, in the words of its error.
    pub fn start_session(&self, request: &Value) -> anyhow::Result<Value> {
        api::start_session(&self.service, request)
    }

    /// Secrets that no client may print or log: all tokens, secret keys and data keys so far.
    #[must_use]
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        self.service.secrets()
    }

    /// Sends bytes as one binary frame to the session's client, whatever they are.
    pub fn inject(&self, id: &str, frame: &[u8]) {
        self.deliver(id, Bytes::copy_from_slice(frame));
    }

    #[cfg(test)]
    pub(crate) fn service_in_outage(&self) -> bool {
        self.service.in_outage()
    }

    fn deliver(&self, id: &str, frame: Bytes) {
        self.with(id, |session| async move { session.deliver(frame).await });
    }

    fn with<F: Future<Output = ()> + Send + 'static>(&self, id: &str, act: impl FnOnce(Arc<Session>) -> F) {
        if let Some(session) = self.service.session(id) {
            self.handle.spawn(act(session));
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Threads for connections and agents.
const WORKERS: usize = 2;

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
