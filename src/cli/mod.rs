//! The positional argument contract between the AWS CLI and the plugin.
//!
//! | arguments | meaning |
//! |---|---|
//! | none | say that the plugin is installed |
//! | `--version`, `--help` or `-h`, `--man` | print a text |
//! | one or two others | unknown operation |
//! | response, region, operation | legacy start: KMS needs a newer caller |
//! | … profile, request JSON, endpoint | the same with up to three more words; additional ones are ignored |
//!
//! [`parse`] is pure; only its `take_env` argument touches the environment.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::secret::Secret;

mod backslashes;
mod error;
mod response;

pub use self::error::CliError;

/// A parsed call.
#[derive(Debug)]
pub enum Invocation {
    /// No arguments: the CLI and installers check that the plugin exists.
    Installed,
    /// `--version`.
    Version,
    /// `--help` or `-h`.
    Help,
    /// `--man`: the manual page, for packages.
    Manual,
    /// One or two words that are none of the above; the first one, fit to be printed.
    UnknownOperation(String),
    /// Three or more words whose third is not `StartSession`.
    InvalidOperation,
    /// Run a session.
    StartSession(Box<StartSession>),
}

/// Everything needed to run one session.
pub struct StartSession {
    /// The session's id, as the service gave it.
    pub session_id: String,
    /// URL of the data channel.
    pub stream_url: String,
    /// Opens the data channel, once.
    pub token: Secret,
    /// The region of the session; may be empty.
    pub region: String,
    /// The profile for calls to SSM and KMS; `None` if empty or absent.
    pub profile: Option<String>,
    /// `Target` of the request: part of the KMS encryption context.
    pub target: Option<String>,
    /// The StartSession request as the CLI made it, for starting additional sessions like it.
    pub request: Option<Value>,
    /// The endpoint of the service that made the session. Of ECS, not SSM, under `ecs execute-command`.
    pub endpoint: Option<String>,
    /// The three-word form of callers too old to hand over a profile.
    pub legacy: bool,
    /// The response, and so the token, was itself the first word, which other users can see.
    pub response_is_argument: bool,
}

impl StartSession {
    /// The name of the session document: without one in the request, the default of the service. `None` if it is not known.
    #[must_use]
    pub fn document(&self) -> Option<&str> {
        let request = self.request.as_ref()?;
        match member(request, "DocumentName") {
            Some(name) => name.as_str(),
            // ECS starts the session; its document is not in the request.
            None if self.target.as_deref().is_none_or(|target| target.starts_with("ecs:")) => None,
            None => Some(DEFAULT_DOCUMENT),
        }
    }

    /// The first value of a parameter of the session document.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        match member(member(self.request.as_ref()?, "Parameters")?, name)? {
            Value::Array(values) => values.first()?.as_str(),
            value => value.as_str(),
        }
    }
}

/// Without the URL's query, which may be signed, and the request, whose parameters are the user's.
impl fmt::Debug for StartSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSession")
            .field("session_id", &self.session_id)
            .field("stream_url", &self.stream_url.split('?').next().unwrap_or_default())
            .field("region", &self.region)
            .field("profile", &self.profile)
            .field("target", &self.target)
            .field("endpoint", &self.endpoint)
            .field("legacy", &self.legacy)
            .finish_non_exhaustive()
    }
}

/// Reads the command line, program name first. `take_env` returns a variable's value and removes it
/// from the environment; it is asked at most once, for the response.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    mut take_env: impl FnMut(&str) -> Option<OsString>,
) -> Result<Invocation, CliError> {
    let mut words: Vec<OsString> = args.skip(1).collect();
    match words.as_slice() {
        [] => return Ok(Invocation::Installed),
        [word] if word == "--version" => return Ok(Invocation::Version),
        [word] if is_help(word) => return Ok(Invocation::Help),
        [word] if word == "--man" => return Ok(Invocation::Manual),
        [word] | [word, _] => return Ok(Invocation::UnknownOperation(printable(word))),
        _ => {}
    }
    let legacy = words.len() == LEGACY_WORDS;
    words.truncate(MAX_WORDS);
    let mut words = words.into_iter();
    let mut position = 0;
    let mut next = || {
        position += 1;
        words.next().map(|word| word.into_string().map_err(|_| CliError::NotUtf8(position))).transpose()
    };

    let response = response_text(next()?.unwrap_or_default(), &mut take_env)?;
    let region = next()?.unwrap_or_default();
    let operation = next()?.unwrap_or_default();
    if operation != START_SESSION {
        return Ok(Invocation::InvalidOperation);
    }
    let profile = next()?.filter(|word| !word.is_empty());
    let request = next()?.and_then(|word| request(&word));
    let endpoint = next()?.filter(|word| !word.is_empty());

    let response_is_argument = matches!(response, ResponseText::Argument(_));
    let response = match response {
        ResponseText::Argument(text) | ResponseText::Variable(text) => response::parse(&text)?,
        ResponseText::NotSet(name) => return Err(CliError::ResponseNotSet(name)),
    };
    Ok(Invocation::StartSession(Box::new(StartSession {
        session_id: response.session_id,
        stream_url: response.stream_url,
        token: response.token,
        region,
        profile,
        target: request.as_ref().and_then(target),
        request,
        endpoint,
        legacy,
        response_is_argument,
    })))
}

enum ResponseText {
    Argument(Zeroizing<String>),
    Variable(Zeroizing<String>),
    NotSet(String),
}

/// The variable is taken even if the operation turns out to be another: it holds a token.
fn response_text(
    word: String,
    take_env: &mut impl FnMut(&str) -> Option<OsString>,
) -> Result<ResponseText, CliError> {
    if !word.starts_with(RESPONSE_VARIABLE) {
        let plain = match backslashes::removed(&word) {
            Cow::Owned(plain) => Some(plain),
            Cow::Borrowed(_) => None,
        };
        let word = Zeroizing::new(word);
        return Ok(ResponseText::Argument(plain.map_or(word, Zeroizing::new)));
    }
    match take_env(&word).map(OsString::into_string) {
        Some(Ok(text)) if !text.is_empty() => Ok(ResponseText::Variable(Zeroizing::new(text))),
        Some(Err(_)) => Err(CliError::NotUtf8(1)),
        _ => Ok(ResponseText::NotSet(word)),
    }
}

/// `None` when it is not an object: the official plugin ignores a request it cannot read.
fn request(word: &str) -> Option<Value> {
    serde_json::from_str(&backslashes::removed(word)).ok().filter(Value::is_object)
}

fn target(request: &Value) -> Option<String> {
    member(request, "Target")?.as_str().map(str::to_owned)
}

/// A member of an object; callers spell the names in any case.
fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn is_help(word: &OsString) -> bool {
    word == "--help" || word == "-h"
}

/// A caller that forgot the other words may have put the response, and so the token, first.
fn printable(word: &OsString) -> String {
    let word = word.to_string_lossy();
    if word.trim_start().starts_with('{') { "{...}".to_owned() } else { word.into_owned() }
}

/// The document of a request that names none (the AWS documentation of StartSession).
const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";
const START_SESSION: &str = "StartSession";
const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";
const LEGACY_WORDS: usize = 3;
const MAX_WORDS: usize = 6;

#[cfg(test)]
mod tests;
