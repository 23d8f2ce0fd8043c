//! The version of the official plugin that this program stands in for.

/// The official plugin's version whose behaviour this program has: unless a setting says otherwise, the answer to
/// `--version`, and the version that is reported to service and agent. The AWS CLI wants more than 1.2.497.0 (or it puts the token into argv), the service
/// at least 1.2.764.0.
pub const COMPATIBLE_VERSION: &str = "1.2.896.0";
