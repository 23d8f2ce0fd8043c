//! The key that shells are encrypted with.

use super::network::Route;
use super::options::Options;
use super::report::Check;
use crate::aws::{AwsError, Client, ErrorKind};

/// Looks up the key of the account's preferences, and checks by a dry run that it may be used.
pub(super) async fn check(options: &Options, route: &Route, client: Option<&Client>) -> Check {
    if let Err(reason) = route.usable() {
        return Check::skipped(NAME, reason);
    }
    let Some(client) = client else { return Check::skipped(NAME, "cannot be looked up without a region") };
    let key = match client.session_key().await {
        Ok(Some(key)) => key,
        Ok(None) => {
            return Check::ok(NAME, "no KMS key is set in the account's Session Manager preferences")
                .field("key", None::<String>);
        }
        Err(error) => return unknown(&error, "read the session preferences (ssm:GetDocument)"),
    };
    let checked = client.check_data_key(&key, options.target.as_deref()).await;
    let check = match checked {
        Ok(()) => Check::ok(NAME, format!("you can use the KMS key {key}")),
        Err(error) if error.kind == ErrorKind::Denied => {
            Check::failure(NAME, format!("shells are encrypted with {key}, but {error}"))
                .advice("ask your administrator to allow kms:GenerateDataKey on this key")
        }
        Err(error) if error.kind == ErrorKind::Refused => {
            Check::failure(NAME, format!("shells are encrypted with {key}, but {error}"))
                .advice("ask your administrator to check the key in the Session Manager preferences")
        }
        Err(error) => unknown(&error, "use the key"),
    };
    check.field("key", key)
}

/// Not a failure: sessions do not need this look-up.
fn unknown(error: &AwsError, action: &str) -> Check {
    match error.kind {
        ErrorKind::Denied => {
            Check::skipped(NAME, format!("no permission to {action}; sessions do not need it"))
                .field("allowed", false)
        }
        ErrorKind::NoCredentials
        | ErrorKind::BadCredentials
        | ErrorKind::SignInNeeded
        | ErrorKind::UnsafeCache
        | ErrorKind::UnreadableFile => Check::skipped(NAME, "see the credentials check"),
        _ => Check::skipped(NAME, format!("cannot be checked: {error}")),
    }
}

const NAME: &str = "encryption";
