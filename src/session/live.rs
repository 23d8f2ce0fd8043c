//! A session that exists at the service, and the opening handshake of its channel.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::aws;
use crate::link::{Link, LinkEvent};
use crate::protocol::{DataKey, DataKeyRequest, Event, SessionKind};

/// A session that exists at the service. It has to be ended: dropping it leaves it open there.
pub(super) struct LiveSession {
    pub id: String,
    pub link: Link,
    /// Provides data keys.
    pub aws: Arc<aws::Client>,
    /// True if `aws` has credentials to end the session with. A caller that presigned the URL has kept its own.
    pub has_credentials: bool,
    /// Its agent reads the flag that ends a session: that of a port session, once the handshake has named it.
    pub reads_flags: bool,
    /// The caller's form of the command line has no place for data keys.
    pub is_legacy: bool,
    /// The data key on its way.
    data_key: Option<KeyRequest>,
}

/// Step of an opening handshake.
#[derive(Debug)]
pub(super) enum Opening {
    /// The handshake is over.
    Ready(SessionKind),
    /// There is no data key, for this reason. The agent is informed, and ends the session.
    KeyFailed(String),
    /// Any other event of the link.
    Link(LinkEvent),
}

type KeyRequest = Pin<Box<dyn Future<Output = Result<DataKey, String>> + Send>>;

impl LiveSession {
    /// A session whose handshake has not begun.
    pub(super) fn new(id: String, link: Link, aws: Arc<aws::Client>) -> LiveSession {
        let (has_credentials, reads_flags, is_legacy) = (true, false, false);
        LiveSession { id, link, aws, has_credentials, reads_flags, is_legacy, data_key: None }
    }

    /// Continues the opening handshake to its next step. Cancel-safe; called until [`Opening::Ready`].
    pub(super) async fn open(&mut self) -> Opening {
        poll_fn(|cx| self.poll_open(cx)).await
    }

    /// As [`LiveSession::open`]. A data key is requested alongside the link: pings continue.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Opening> {
        loop {
            if let Some(request) = &mut self.data_key
                && let Poll::Ready(key) = request.as_mut().poll(cx)
            {
                self.data_key = None;
                let failure = key.as_ref().err().cloned();
                self.link.handle_data_key(key);
                if let Some(reason) = failure {
                    return Poll::Ready(Opening::KeyFailed(reason));
                }
            }
            let event = ready!(pin!(self.link.next(true)).poll(cx));
            return Poll::Ready(match event {
                LinkEvent::Channel(Event::DataKeyNeeded(request)) => {
                    self.data_key = Some(self.request_key(request));
                    continue;
                }
                LinkEvent::Channel(Event::Ready(kind)) => {
                    self.reads_flags = matches!(kind, SessionKind::Port(_));
                    Opening::Ready(kind)
                }
                event => Opening::Link(event),
            });
        }
    }

    /// Returns whether the handshake waits for a data key.
    pub(super) fn awaits_key(&self) -> bool {
        self.data_key.is_some()
    }

    fn request_key(&self, request: DataKeyRequest) -> KeyRequest {
        let (aws, id, is_legacy) = (Arc::clone(&self.aws), self.id.clone(), self.is_legacy);
        Box::pin(async move {
            if is_legacy {
                return Err(KMS_NEEDS_NEWER_CLI.to_owned());
            }
            aws.data_key(&id, &request).await.map_err(|error| error.to_string())
        })
    }
}

/// The official plugin's words to callers of the four-argument form.
const KMS_NEEDS_NEWER_CLI: &str = "Installed version of CLI does not support Session Manager encryption feature. \
    Please upgrade to the latest version of your CLI (e.g., AWS CLI).";
