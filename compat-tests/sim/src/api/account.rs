//! The account that owns everything.

/// Its number, in ARNs.
pub(super) const ACCOUNT: &str = "123456789012";
