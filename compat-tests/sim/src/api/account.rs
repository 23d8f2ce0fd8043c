//! The AWS account that owns all resources.

/// Its number, in ARNs.
pub(super) const ACCOUNT: &str = "123456789012";
