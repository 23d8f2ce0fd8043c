//! A simulator without sockets and threads, in its caller's runtime and on its clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{Config, Cut, Faults, ResumePolicy, Way};
use crate::report::{RequestCounts, SessionReport};
use crate::service::Service;
use crate::session::Session;
use crate::stream::Stream;
use crate::{api, frame, gateway};

/// The service and its agents. What [`crate::Sim`] takes from the network comes by calls here; sessions run as tasks of the
/// runtime in which they are used.
#[derive(Clone)]
pub struct Inside(Arc<Service>);

/// A refused API request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// `__type` of the answer, such as `AccessDeniedException`.
    pub kind: &'static str,
    /// Its message.
    pub message: String,
    /// The HTTP status.
    pub status: u16,
}

impl Inside {
    /// A service without sessions. [`Config::port`] and TLS have no meaning.
    ///
    /// # Errors
    /// When there is no randomness for keys.
    pub fn new(config: Config) -> anyhow::Result<Inside> {
        Ok(Inside(Arc::new(Service::new(config, 0)?)))
    }

    /// Makes an API request, such as `AmazonSSM.StartSession`, which needs no signature.
    ///
    /// # Errors
    /// As the service answers.
    pub fn call(&self, target: &str, request: &Value) -> Result<Value, CallError> {
        let answer = api::call(&self.0, target, request.to_string().as_bytes());
        answer.map_err(|error| CallError {
            kind: error.kind,
            message: error.message,
            status: error.status.as_u16(),
        })
    }

    /// Serves the client of a data channel, from its HTTP request to the end of its websocket.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        if !self.0.in_outage() {
            gateway::serve(Arc::clone(&self.0), Stream::other(stream)).await;
        }
    }

    /// All sessions since the start, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionReport> {
        self.0.reports()
    }

    /// API requests so far.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.0.requests()
    }

    /// As [`crate::Sim::pause`].
    pub async fn pause(&self, id: &str, on: bool) {
        if let Some(session) = self.0.session(id) {
            session.deliver(frame::publication(on)).await;
        }
    }

    /// As [`crate::Sim::cut_with`].
    pub fn cut(&self, id: &str, cut: Cut) {
        self.with(id, |session| session.cut(cut));
    }

    /// As [`crate::Sim::stall`].
    pub fn stall(&self, id: &str, way: Way, time: Duration) {
        self.with(id, |session| session.stall(way, time));
    }

    /// As [`crate::Sim::outage`].
    pub fn outage(&self, time: Duration) {
        self.0.outage(time);
    }

    /// As [`crate::Sim::close_session`].
    pub async fn close_session(&self, id: &str, output: &str) {
        if let Some(session) = self.0.session(id) {
            session.end(output, false).await;
        }
    }

    /// As [`crate::Sim::set_faults`].
    pub fn set_faults(&self, faults: Faults) {
        self.0.faults.send_replace(faults);
    }

    /// As [`crate::Sim::set_resume`].
    pub fn set_resume(&self, policy: ResumePolicy) {
        self.0.set_resume(policy);
    }

    /// As [`crate::Sim::refuse_starts`].
    pub fn refuse_starts(&self, kind: Option<&'static str>) {
        self.0.set_refusal(kind.map(|kind| (kind, format!("{kind}, says the simulator"))));
    }

    fn with(&self, id: &str, act: impl FnOnce(&Session)) {
        if let Some(session) = self.0.session(id) {
            act(&session);
        }
    }
}
