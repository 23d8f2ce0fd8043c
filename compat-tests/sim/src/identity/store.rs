//! The store of valid, expired and revoked credentials.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::Credentials;
use crate::signature::{Signature, Signed};

/// Temporary credentials.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub credentials: Credentials,
    pub token: String,
    pub expires: SystemTime,
}

/// Reason that a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The access key is unknown, or its session token is another.
    Unknown,
    /// It is over, or was revoked.
    Expired,
    /// It is the right key, but not its signature.
    Mismatch,
}

/// Knows who may ask.
pub(crate) struct Identities {
    configured: Option<Credentials>,
    lifetime: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    issued: Vec<Issued>,
    added: Vec<Credentials>,
    revoked: BTreeSet<String>,
    /// The SSO tokens that are good now.
    sso_tokens: BTreeSet<String>,
}

impl Identities {
    /// With the configured pair; temporary credentials live for `lifetime`.
    pub fn new(configured: Option<Credentials>, lifetime: Duration, sso_token: &str) -> Identities {
        let sso_tokens = BTreeSet::from([sso_token.to_owned()]);
        Identities { configured, lifetime, inner: Mutex::new(Inner { sso_tokens, ..Inner::default() }) }
    }

    /// Gives out temporary credentials whose access key begins with `prefix`.
    pub fn issue(&self, prefix: &str) -> Issued {
        let mut inner = self.lock();
        let number = inner.issued.len();
        let issued = Issued {
            credentials: Credentials {
                access_key: format!("{prefix}{number:04}"),
                secret_key: format!("secret-{prefix}-{:016x}", fastrand::u64(..)),
            },
            token: format!("token-{prefix}-{:016x}", fastrand::u64(..)),
            expires: SystemTime::now() + self.lifetime,
        };
        inner.issued.push(issued.clone());
        issued
    }

    /// Accepts an additional long-term pair.
    pub fn add(&self, access_key: &str, secret_key: &str) -> Credentials {
        let pair = Credentials { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() };
        self.lock().added.push(pair.clone());
        pair
    }

    /// Refuses an access key, or an SSO access token, as expired from now on.
    pub fn revoke(&self, key: &str) {
        let mut inner = self.lock();
        inner.sso_tokens.remove(key);
        inner.revoked.insert(key.to_owned());
    }

    /// Returns whether an SSO access token is good.
    pub fn knows_sso_token(&self, token: &str) -> bool {
        self.lock().sso_tokens.contains(token)
    }

    /// A new SSO access token.
    pub fn new_sso_token(&self) -> String {
        let token = format!("sso-{:016x}", fastrand::u64(..));
        self.lock().sso_tokens.insert(token.clone());
        token
    }

    /// The secret parts of all credentials.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        let inner = self.lock();
        let issued = inner.issued.iter().flat_map(|i| [i.credentials.secret_key.clone(), i.token.clone()]);
        let configured = self.configured.iter().map(|credentials| credentials.secret_key.clone());
        let sso = inner.sso_tokens.iter().cloned();
        issued.chain(configured).chain(sso).map(String::into_bytes).collect()
    }

    /// Returns whether a signature is whose it says; `Ok(false)` when anybody's will do and it was not
    /// verified.
    pub fn check(&self, signature: &Signature, request: &Signed<'_>) -> Result<bool, Refusal> {
        let Some(configured) = &self.configured else { return Ok(false) };
        let inner = self.lock();
        let key = signature.access_key();
        if inner.revoked.contains(key) {
            return Err(Refusal::Expired);
        }
        let credentials = match inner.issued.iter().find(|issued| issued.credentials.access_key == key) {
            Some(issued) => {
                let token = request.headers.get("x-amz-security-token").and_then(|v| v.to_str().ok());
                if token != Some(issued.token.as_str()) {
                    return Err(Refusal::Unknown);
                }
                if issued.expires <= SystemTime::now() {
                    return Err(Refusal::Expired);
                }
                &issued.credentials
            }
            None => std::iter::once(configured)
                .chain(&inner.added)
                .find(|pair| pair.access_key == key)
                .ok_or(Refusal::Unknown)?,
        };
        if signature.verify(request, credentials) { Ok(true) } else { Err(Refusal::Mismatch) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
