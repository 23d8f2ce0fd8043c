//! The service as a world has it: the simulator in the same process, behind wires and calls that take their time.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ssm_sim::{Cut, DEFAULT_TARGET, Inside, SessionState};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::descriptors::Descriptors;
use super::log::Log;
use super::wire::{Wire, WireControl};
use super::world::LinkQuality;
use crate::aws::{Api, AwsError, Call, ErrorKind, StartSessionOutput};
use crate::link::{Connecting, Connector, Transport};
use crate::protocol::{DATA_KEY_LENGTH, DataKey, DataKeyRequest};
use crate::secret::Secret;

/// The service and the way to it.
#[derive(Clone)]
pub(super) struct Cloud {
    pub inside: Inside,
    pub descriptors: Descriptors,
    log: Log,
    link: LinkQuality,
    state: Arc<Mutex<State>>,
    /// Calls of StartSession under way, and of TerminateSession that did not reach the service.
    starting: Arc<AtomicU64>,
    unterminated: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    wires: Vec<WireControl>,
    outage_until: Option<Instant>,
    /// The newest trouble of the wires.
    trouble: Option<Instant>,
}

impl Cloud {
    pub(super) fn new(inside: Inside, link: LinkQuality, log: Log) -> Cloud {
        let (descriptors, starting, unterminated) = Default::default();
        Cloud { inside, descriptors, log, link, state: Arc::default(), starting, unterminated }
    }

    /// Does something to all wires.
    pub(super) fn each_wire(&self, act: impl Fn(&WireControl)) {
        let mut state = self.lock();
        state.trouble = Some(Instant::now());
        state.wires.iter().for_each(act);
    }

    /// Returns whether the wires had trouble less than [`UNNOTICED`] ago: the program may not have noticed it.
    pub(super) fn has_trouble(&self) -> bool {
        self.lock().trouble.is_some_and(|at| at.elapsed() < UNNOTICED)
    }

    /// Makes the service unreachable for a while.
    pub(super) fn outage(&self, time: Duration) {
        self.lock().outage_until = Some(Instant::now() + time);
        self.each_wire(WireControl::kill);
    }

    /// Ids of the sessions that have not ended.
    pub(super) fn open_sessions(&self) -> Vec<String> {
        let open = self.inside.sessions().into_iter().filter(|session| session.state != SessionState::Ended);
        open.map(|session| session.id).collect()
    }

    /// Closes all websockets as the service does.
    pub(super) fn close(&self) {
        self.open_sessions().iter().for_each(|id| self.inside.cut(id, Cut::Close));
    }

    /// Returns whether a session may be left open although the program has ended: the call that would have ended it, or
    /// started it, did not come back.
    pub(super) fn may_leave_sessions(&self) -> bool {
        // A real network loses no frame forever.
        self.link.loss > 0.0
            || self.starting.load(Ordering::Relaxed) > 0
            || self.unterminated.load(Ordering::Relaxed) > 0
            || self.in_outage()
    }

    fn in_outage(&self) -> bool {
        self.lock().outage_until.is_some_and(|until| Instant::now() < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: it reaches the service after half of its time.
    async fn call(&self, call: &'static str, request: Value) -> Result<Value, AwsError> {
        self.log.note(format_args!("{call}"));
        if let Err(error) = self.descriptors.take() {
            return Err(AwsError::new(call, ErrorKind::Unreachable, error.to_string()));
        }
        let half = Duration::from_millis(self.link.api_ms / 2);
        sleep(half).await;
        if self.in_outage() {
            sleep(NO_ANSWER).await;
            return Err(AwsError::new(call, ErrorKind::Unreachable, "no answer"));
        }
        let name = call.rsplit(':').next().unwrap_or_default();
        let service = if call.starts_with("kms:") { "TrentService" } else { "AmazonSSM" };
        let answer = self.inside.call(&format!("{service}.{name}"), &request);
        self.log.note(format_args!("{call}: {}", answer.as_ref().map_or_else(|error| error.kind, |_| "ok")));
        sleep(half).await;
        answer.map_err(|error| {
            let kind = match error.kind {
                "ThrottlingException" => ErrorKind::Throttled,
                "AccessDeniedException" => ErrorKind::Denied,
                "TargetNotConnected" => ErrorKind::TargetNotConnected,
                "ExpiredTokenException" => ErrorKind::BadCredentials,
                "DoesNotExistException" => ErrorKind::SessionGone,
                _ => ErrorKind::Refused,
            };
            AwsError::new(call, kind, error.message)
        })
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}

/// The session of an answer.
pub(super) fn opened(call: &'static str, answer: &Value) -> Result<StartSessionOutput, AwsError> {
    let field = |name: &str| answer[name].as_str().map(str::to_owned);
    let token = field("TokenValue");
    let token =
        token.ok_or_else(|| AwsError::new(call, ErrorKind::SessionGone, "the session has timed out"))?;
    Ok(StartSessionOutput {
        session_id: field("SessionId").unwrap_or_default(),
        stream_url: field("StreamUrl").unwrap_or_default(),
        token: Secret::new(token),
    })
}

/// Counts a call for as long as it is under way, also when it is dropped on its way.
struct UnderWay(Arc<AtomicU64>);

impl UnderWay {
    fn new(count: &Arc<AtomicU64>) -> UnderWay {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(count))
    }

    fn arrived(self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Api for Cloud {
    fn start(&self, request: &Value) -> Call<'_, StartSessionOutput> {
        let request = request.clone();
        Box::pin(async move {
            let under_way = UnderWay::new(&self.starting);
            let answer = self.call("ssm:StartSession", request).await;
            under_way.arrived();
            opened("ssm:StartSession", &answer?)
        })
    }

    fn resume(&self, session_id: &str) -> Call<'_, StartSessionOutput> {
        let request = json!({"SessionId": session_id});
        Box::pin(async move { opened("ssm:ResumeSession", &self.call("ssm:ResumeSession", request).await?) })
    }

    fn terminate(&self, session_id: &str) -> Call<'_, ()> {
        let request = json!({"SessionId": session_id});
        Box::pin(async move {
            let under_way = UnderWay::new(&self.unterminated);
            self.call("ssm:TerminateSession", request).await?;
            under_way.arrived();
            Ok(())
        })
    }

    fn data_key(&self, session_id: &str, request: &DataKeyRequest) -> Call<'_, DataKey> {
        let mut context = json!({"aws:ssm:SessionId": session_id, "aws:ssm:TargetId": DEFAULT_TARGET});
        if let Some(challenge) = &request.challenge {
            context["aws:ssm:RandomChallenge"] = json!(challenge);
        }
        let request = json!({
            "KeyId": request.key_id, "NumberOfBytes": DATA_KEY_LENGTH, "EncryptionContext": context,
        });
        Box::pin(async move {
            let answer = self.call("kms:GenerateDataKey", request).await?;
            let field = |name: &str| STANDARD.decode(answer[name].as_str().unwrap_or_default());
            let (plaintext, ciphertext) =
                (field("Plaintext").expect("bytes"), field("CiphertextBlob").expect("bytes"));
            let plaintext = Zeroizing::new(plaintext.try_into().expect("a key"));
            Ok(DataKey { plaintext, ciphertext })
        })
    }
}

impl Connector for Cloud {
    fn connect(&self, _host: &str, _port: u16) -> Connecting {
        let cloud = self.clone();
        Box::pin(async move {
            cloud.log.note("connect");
            cloud.descriptors.take()?;
            if cloud.in_outage() {
                sleep(NO_ANSWER).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            let delay = Duration::from_millis(cloud.link.delay_ms);
            sleep(2 * delay).await;
            let (near, far, control) = Wire::pair(delay);
            cloud.lock().wires.push(control);
            let inside = cloud.inside.clone();
            tokio::spawn(async move { inside.serve(far).await });
            Ok(Box::new(near) as Box<dyn Transport>)
        })
    }
}

/// Time in which the program may take a dead path for one that works, and then end by it.
const UNNOTICED: Duration = Duration::from_secs(8);
/// Time after which a call or a connection to a service that does not answer fails.
const NO_ANSWER: Duration = Duration::from_secs(5);
