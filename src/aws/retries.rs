//! Retry settings: read here, since the SDK's loader panics on those that it cannot read.

use std::ffi::OsString;

use aws_config::profile::ProfileSet;
use aws_config::retry::{RetryConfig, RetryMode};

/// The user's retry settings, for calls that are retried at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retries {
    attempts: Option<u32>,
    mode: Option<RetryMode>,
    /// Settings that cannot be used, in a sentence.
    pub warning: Option<String>,
}

impl Retries {
    /// Reads the variables through `get`, then the selected profile. The AWS CLI 1's mode `legacy` counts as
    /// `standard`, and 0 attempts as no limit, as in the SDK for Go; the call's time limit applies all the same.
    pub(super) fn read(get: impl Fn(&str) -> Option<OsString>, profiles: Option<&ProfileSet>) -> Retries {
        let value = |variable: &str, key: &str| {
            let from_profile = || Some((key.to_owned(), profiles?.get(key)?.trim().to_owned()));
            let from_variable = get(variable).map(|value| value.to_string_lossy().trim().to_owned());
            let from_variable = from_variable.filter(|value| !value.is_empty());
            from_variable.map(|value| (variable.to_owned(), value)).or_else(from_profile)
        };
        let mut retries = Retries::default();
        if let Some((name, value)) = value(ATTEMPTS, "max_attempts").filter(|(_, value)| !value.is_empty()) {
            match value.parse() {
                Ok(0) => retries.attempts = Some(u32::MAX),
                Ok(attempts) => retries.attempts = Some(attempts),
                Err(_) => retries.warn(&name, "a number"),
            }
        }
        if let Some((name, value)) = value(MODE, "retry_mode").filter(|(_, value)| !value.is_empty()) {
            match value.to_ascii_lowercase().as_str() {
                "legacy" | "standard" => retries.mode = Some(RetryMode::Standard),
                "adaptive" => retries.mode = Some(RetryMode::Adaptive),
                _ => retries.warn(&name, "legacy, standard or adaptive"),
            }
        }
        retries
    }

    /// The settings in place of those in `default`.
    pub(super) fn over(&self, default: RetryConfig) -> RetryConfig {
        let attempts = self.attempts.unwrap_or(default.max_attempts());
        let mode = self.mode.unwrap_or(default.mode());
        default.with_max_attempts(attempts).with_retry_mode(mode)
    }

    fn warn(&mut self, name: &str, wanted: &str) {
        // The value is not repeated: it may be anything, a secret in the wrong place included.
        let warning = format!("{name} must be {wanted}; using the default");
        match &mut self.warning {
            Some(warnings) => *warnings = format!("{warnings}; {warning}"),
            None => self.warning = Some(warning),
        }
    }
}

const ATTEMPTS: &str = "AWS_MAX_ATTEMPTS";
const MODE: &str = "AWS_RETRY_MODE";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attempts: &'static str, mode: &'static str) -> (RetryConfig, Option<String>) {
        let get = |name: &str| Some(OsString::from(if name == ATTEMPTS { attempts } else { mode }));
        let retries = Retries::read(get, None);
        (retries.over(RetryConfig::standard()), retries.warning)
    }

    #[test]
    fn values() {
        let standard = RetryConfig::standard();
        assert_eq!(read("", ""), (standard.clone(), None));
        assert_eq!(read("  ", "legacy"), (standard.clone(), None));
        assert_eq!(read(" 5", "Standard"), (standard.clone().with_max_attempts(5), None));
        assert_eq!(read("0", ""), (standard.clone().with_max_attempts(u32::MAX), None));
        assert_eq!(read("", "adaptive"), (standard.clone().with_retry_mode(RetryMode::Adaptive), None));
        let (config, warning) = read("many", "sometimes");
        let sentence = "AWS_MAX_ATTEMPTS must be a number; using the default; AWS_RETRY_MODE must be legacy, \
                        standard or adaptive; using the default";
        assert_eq!((config, warning.as_deref()), (standard, Some(sentence)));
    }
}
