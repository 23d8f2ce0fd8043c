//! The service's memory: its sessions, and what it has been told to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::agent::{AgentSpec, Document, KmsPolicy};
use crate::config::{Config, Cut, Faults, ResumePolicy};
use crate::identity::Identities;
use crate::instance::{Instance, PingStatus, PushedKey};
use crate::kms::KeyStore;
use crate::report::{RequestCounts, SessionReport, SessionState};
use crate::session::{Opening, Session};

/// Shared by all connections.
pub(crate) struct Service {
    pub config: Config,
    pub faults: watch::Sender<Faults>,
    pub kms: Arc<KeyStore>,
    pub identities: Identities,
    started: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `ws://127.0.0.1:PORT`, `wss:`, or as [`Config::stream_base`] says.
    stream_base: String,
    sessions: Vec<Arc<Session>>,
    requests: RequestCounts,
    resume: ResumePolicy,
    /// Error of StartSession: kind and message.
    refusal: Option<(&'static str, String)>,
    /// Addresses of names, as the instance resolves them.
    hosts: BTreeMap<String, String>,
    denied: BTreeSet<String>,
    /// With the time of their push, oldest first.
    keys: Vec<(Instant, PushedKey)>,
    outage_until: Option<Instant>,
    secrets: Vec<Vec<u8>>,
    active: Instant,
}

impl Service {
    /// A service without sessions.
    pub fn new(config: Config, port: u16) -> anyhow::Result<Service> {
        let scheme = if config.tls { "wss" } else { "ws" };
        let here = || format!("{scheme}://127.0.0.1:{port}");
        let stream_base = config.stream_base.clone().unwrap_or_else(here);
        let inner = Inner {
            stream_base,
            sessions: Vec::new(),
            requests: RequestCounts::default(),
            resume: config.resume,
            refusal: None,
            hosts: BTreeMap::new(),
            denied: config.denied.iter().cloned().collect(),
            keys: Vec::new(),
            outage_until: None,
            secrets: Vec::new(),
            active: Instant::now(),
        };
        Ok(Service {
            faults: watch::Sender::new(config.faults.clone()),
            kms: Arc::new(KeyStore::new()?),
            identities: Identities::new(
                config.credentials.clone(),
                config.credential_lifetime,
                &config.sso_access_token,
            ),
            started: Instant::now(),
            inner: Mutex::new(inner),
            config,
        })
    }

    /// Begins a session; its agent starts when a client opens the data channel.
    pub fn start_session(&self, target: &str, document_name: &str, document: Document) -> Opening {
        let id = format!("{}-0{:016x}", self.config.user, fastrand::u64(..));
        let document = self.resolved(document);
        let shell = !matches!(document, Document::PortForward { .. } | Document::Ssh { .. });
        let spec = AgentSpec {
            session_id: id.clone(),
            target_id: target.to_owned(),
            document,
            options: self.config.agent.clone(),
            kms: if shell { self.kms_policy() } else { None },
        };
        let session = Arc::new(Session::new(spec, document_name, &self.config));
        let opening = session.renew(&self.stream_base(), true);
        self.note_secret(opening.token.as_bytes());
        self.lock().sessions.push(session);
        opening
    }

    /// A new token and stream URL for a session.
    pub fn renew(&self, session: &Session) -> Opening {
        let opening = session.renew(&self.stream_base(), false);
        self.note_secret(opening.token.as_bytes());
        opening
    }

    /// Remembers something that must not be printed.
    pub fn note_secret(&self, secret: &[u8]) {
        self.lock().secrets.push(secret.to_vec());
    }

    /// Everything that must not be printed: tokens, secret keys, data keys.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        let mut secrets = self.lock().secrets.clone();
        secrets.extend(self.identities.secrets());
        secrets
    }

    /// The session with this id.
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.lock().sessions.iter().find(|s| s.id == id).cloned()
    }

    /// All sessions, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().sessions.clone()
    }

    /// All sessions' reports, oldest first.
    pub fn reports(&self) -> Vec<SessionReport> {
        self.sessions().iter().map(|s| s.report()).collect()
    }

    /// Counts a request.
    pub fn count(&self, count: impl FnOnce(&mut RequestCounts)) {
        let mut inner = self.lock();
        inner.active = Instant::now();
        count(&mut inner.requests);
    }

    /// The requests so far.
    pub fn requests(&self) -> RequestCounts {
        self.lock().requests
    }

    /// Current response of ResumeSession.
    pub fn resume_policy(&self) -> ResumePolicy {
        self.lock().resume
    }

    /// Changes what ResumeSession answers.
    pub fn set_resume(&self, policy: ResumePolicy) {
        self.lock().resume = policy;
    }

    /// Changes where stream URLs lead.
    pub fn set_stream_base(&self, base: &str) {
        base.clone_into(&mut self.lock().stream_base);
    }

    fn stream_base(&self) -> String {
        self.lock().stream_base.clone()
    }

    /// All instances, with their states now.
    pub fn instances(&self) -> Vec<Instance> {
        let Config { targets, instances, .. } = &self.config;
        let plain = targets.iter().filter(|id| !instances.iter().any(|instance| instance.id == **id));
        let mut all: Vec<Instance> =
            instances.iter().cloned().chain(plain.map(|id| Instance::new(id))).collect();
        if self.started.elapsed() < self.config.connected_after {
            all.iter_mut().for_each(|instance| instance.ping_status = PingStatus::ConnectionLost);
        }
        all
    }

    /// Returns whether the target's agent is connected.
    pub fn is_connected(&self, target: &str) -> bool {
        let is_online =
            |instance: &Instance| instance.id == target && instance.ping_status == PingStatus::Online;
        self.instances().iter().any(is_online)
    }

    /// Returns whether IAM denies an action.
    pub fn is_denied(&self, action: &str) -> bool {
        self.lock().denied.contains(action)
    }

    /// Denies an action, or allows it again.
    pub fn set_denied(&self, action: &str, is_denied: bool) {
        let mut inner = self.lock();
        if is_denied {
            inner.denied.insert(action.to_owned());
        } else {
            inner.denied.remove(action);
        }
    }

    /// Takes a pushed key, for the servers that read [`Config::authorized_keys`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push_key(self: &Arc<Self>, instance: &str, user: &str, key: &str) -> Result<(), String> {
        let key = PushedKey { instance: instance.to_owned(), user: user.to_owned(), key: key.to_owned() };
        self.lock().keys.push((Instant::now(), key));
        self.write_keys().map_err(|error| error.to_string())?;
        let service = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(service.config.key_lifetime).await;
            if let Err(error) = service.write_keys() {
                tracing::warn!(%error, "cannot remove a key");
            }
        });
        Ok(())
    }

    /// All keys pushed so far, oldest first.
    pub fn pushed_keys(&self) -> Vec<PushedKey> {
        self.lock().keys.iter().map(|(_, key)| key.clone()).collect()
    }

    /// Replaces the file, so that no server reads half of it.
    fn write_keys(&self) -> std::io::Result<()> {
        let Some(path) = &self.config.authorized_keys else { return Ok(()) };
        let inner = self.lock();
        let good = inner.keys.iter().filter(|(since, _)| since.elapsed() < self.config.key_lifetime);
        let text: String = good.map(|(_, key)| format!("{}\n", key.key)).collect();
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, path)
    }

    /// Current error of StartSession.
    pub fn refusal(&self) -> Option<(&'static str, String)> {
        self.lock().refusal.clone()
    }

    /// Changes what StartSession is refused with.
    pub fn set_refusal(&self, refusal: Option<(&'static str, String)>) {
        self.lock().refusal = refusal;
    }

    /// Changes what the instance resolves a name to.
    pub fn set_host(&self, name: &str, address: &str) {
        self.lock().hosts.insert(name.to_owned(), address.to_owned());
    }

    /// The agent resolves the destination once, when the session starts.
    fn resolved(&self, document: Document) -> Document {
        match document {
            Document::PortForward { host, port, properties } => {
                let host = self.lock().hosts.get(&host).cloned().unwrap_or(host);
                Document::PortForward { host, port, properties }
            }
            other => other,
        }
    }

    /// Takes the network away for a while.
    pub fn outage(&self, time: Duration) {
        self.lock().outage_until = Some(Instant::now() + time);
        for session in self.sessions() {
            session.cut(Cut::Reset);
        }
    }

    /// Returns whether the network is away now.
    pub fn in_outage(&self) -> bool {
        self.lock().outage_until.is_some_and(|until| Instant::now() < until)
    }

    /// Time without a request and without a connected client.
    pub fn idle(&self) -> Duration {
        let sessions = self.sessions();
        let mut inner = self.lock();
        if sessions.iter().any(|s| s.state() == SessionState::Connected) {
            inner.active = Instant::now();
        }
        inner.active.elapsed()
    }

    fn kms_policy(&self) -> Option<KmsPolicy> {
        let options = &self.config.kms;
        let key_id = options.encrypt_shell.clone()?;
        let kms = Arc::clone(&self.kms);
        Some(KmsPolicy {
            key_id,
            challenge: options.challenge,
            require_challenge: options.require_challenge,
            decrypt: Arc::new(move |blob, context| {
                kms.decrypt(blob, context)
                    .map(|(_, key)| key)
                    .ok_or_else(|| "InvalidCiphertextException".to_owned())
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
