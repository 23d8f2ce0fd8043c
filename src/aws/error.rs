//! Errors of AWS calls, as sentences for the user.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The kind of failure, for deciding what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There are no credentials, or looking them up failed.
    NoCredentials,
    /// A file with profiles or a token cannot be read without waiting for it, so no credentials were looked for; or they
    /// cannot be ones.
    UnreadableFile,
    /// The profile's role needs an MFA code, and the AWS CLI has left no credentials for it.
    SignInNeeded,
    /// The profile's role needs an MFA code, and the AWS CLI's cached credentials for it could have been written or read by
    /// another user.
    UnsafeCache,
    /// The SDK's code or ours panicked.
    Internal,
    /// The service rejects these credentials as expired or unknown. Others may work.
    BadCredentials,
    /// The service accepts the credentials, but they do not allow the call.
    Denied,
    /// The target's agent is not connected to the service (yet).
    TargetNotConnected,
    /// The session is over.
    SessionGone,
    /// There is no such session document in the region.
    UnknownDocument,
    /// The service refuses the request for any other reason.
    Refused,
    /// The service asks for fewer calls.
    Throttled,
    /// No answer, or one that asks to try again later.
    Unreachable,
}

/// A call that failed. Its text names the call and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// For decisions.
    pub kind: ErrorKind,
    call: &'static str,
    reason: String,
}

impl AwsError {
    /// An error of `call`, such as `ssm:StartSession`, with its reason in words.
    pub fn new(call: &'static str, kind: ErrorKind, reason: impl fmt::Display) -> AwsError {
        AwsError { kind, call, reason: shortened(reason.to_string()) }
    }

    /// The call that failed, such as `ssm:StartSession`.
    pub(crate) fn call(&self) -> &'static str {
        self.call
    }

    pub(super) fn credentials(call: &'static str, error: &CredentialsError) -> AwsError {
        let reason = match error {
            CredentialsError::CredentialsNotLoaded(_) => "no AWS credentials were found".to_owned(),
            error => format!("no AWS credentials: {}", innermost(error)),
        };
        AwsError::new(call, ErrorKind::NoCredentials, reason)
    }

    /// A service's error, by its code and the answer's status.
    pub(super) fn answered(call: &'static str, code: &str, status: u16, message: &str) -> AwsError {
        let code = if code.is_empty() { "unknown error" } else { code };
        let kind = kind_of(code, status);
        match message {
            "" => AwsError::new(call, kind, code),
            message => AwsError::new(call, kind, format_args!("{code}: {message}")),
        }
    }

    /// A call without an answer.
    pub(super) fn unreachable(call: &'static str, error: &dyn Error) -> AwsError {
        AwsError::new(call, ErrorKind::Unreachable, innermost(error))
    }

    pub(super) fn sdk<E>(call: &'static str, error: &SdkError<E, HttpResponse>) -> AwsError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(service) = error.as_service_error() else {
            return AwsError::new(call, ErrorKind::Unreachable, innermost(error));
        };
        let code = service.code().unwrap_or("unknown error");
        let kind = match error.raw_response().map(|response| response.status().as_u16()) {
            Some(status) => kind_of(code, status),
            None => ErrorKind::Unreachable,
        };
        match service.message().filter(|message| !message.is_empty()) {
            Some(message) => AwsError::new(call, kind, format_args!("{code}: {message}")),
            None => AwsError::new(call, kind, code),
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.call, self.reason)
    }
}

impl Error for AwsError {}

/// By the code first; services answer many of them with status 400.
fn kind_of(code: &str, status: u16) -> ErrorKind {
    match code {
        "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException" => ErrorKind::BadCredentials,
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => ErrorKind::Denied,
        "TargetNotConnected" => ErrorKind::TargetNotConnected,
        "InvalidDocument" => ErrorKind::UnknownDocument,
        "DoesNotExistException" => ErrorKind::SessionGone,
        "ThrottlingException" | "TooManyRequestsException" | "RequestLimitExceeded" => ErrorKind::Throttled,
        _ if status == 429 => ErrorKind::Throttled,
        _ if status >= 500 => ErrorKind::Unreachable,
        _ if status == 401 || status == 403 => ErrorKind::Denied,
        _ => ErrorKind::Refused,
    }
}

/// The end of the chain of causes: the part that says something, below the SDK's layers.
fn innermost(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    let last = texts.pop().unwrap_or_default();
    match texts.pop() {
        // A bare cause like "connection refused" needs its context.
        Some(context) if last.len() < SHORT_REASON && !context.contains(&last) => {
            format!("{context}: {last}")
        }
        Some(context) if context.contains(&last) => context,
        _ => last,
    }
}

fn shortened(text: String) -> String {
    let mut text = text.replace(['\n', '\r'], " ");
    if let Some((end, _)) = text.char_indices().nth(LONGEST_REASON) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

const SHORT_REASON: usize = 60;
/// Longest part of a service's message that is repeated, in characters.
const LONGEST_REASON: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &(dyn Error + 'static))
        }
    }

    #[test]
    fn codes_decide_before_the_status() {
        assert_eq!(kind_of("ExpiredTokenException", 400), ErrorKind::BadCredentials);
        assert_eq!(kind_of("AccessDeniedException", 400), ErrorKind::Denied);
        assert_eq!(kind_of("DoesNotExistException", 400), ErrorKind::SessionGone);
        assert_eq!(kind_of("InternalServerError", 500), ErrorKind::Unreachable);
        assert_eq!(kind_of("NotFoundException", 400), ErrorKind::Refused);
        assert_eq!(kind_of("unknown error", 403), ErrorKind::Denied);
    }

    #[test]
    fn a_cause_is_shown_with_its_context() {
        let cause = Layer("connection refused", None);
        let error = Layer("dispatch failure", Some(Box::new(Layer("io error", Some(Box::new(cause))))));
        assert_eq!(innermost(&error), "io error: connection refused");
        assert_eq!(innermost(&Layer("alone", None)), "alone");
    }

    #[test]
    fn long_answers_are_cut_and_stay_on_one_line() {
        let error = AwsError::new("kms:GenerateDataKey", ErrorKind::Refused, "ä\n".repeat(LONGEST_REASON));
        let text = error.to_string();
        assert!(text.starts_with("kms:GenerateDataKey failed: ä ä"), "{text}");
        assert!(!text.contains('\n') && text.ends_with("...") && text.chars().count() < LONGEST_REASON + 40);
    }
}
