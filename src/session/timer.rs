//! Waiting for a time that may not be set.

use tokio::time::Instant;

/// Completes at `at`, or never.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
