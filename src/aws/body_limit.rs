//! The limit on what an answer of AWS may hold.
//!
//! The SDK reads the body of every answer into memory, for as long as a call may last. A service, a proxy between or a
//! metadata service over plain HTTP could fill it. The largest answers that are asked for (tokens, keys, credentials) have
//! a few KiB.

use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// A body that fails to be read once it is longer than [`MAX_BODY`].
pub(super) fn limited(body: SdkBody) -> SdkBody {
    SdkBody::from_body_1_x(Limited::new(body, MAX_BODY))
}

/// Bytes of an answer's body.
const MAX_BODY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_last_byte_that_is_read_and_the_first_that_is_not() {
        let read = async |length: usize| limited(SdkBody::from(vec![b' '; length])).collect().await;
        assert_eq!(read(MAX_BODY).await.unwrap().to_bytes().len(), MAX_BODY);
        assert_eq!(read(MAX_BODY + 1).await.unwrap_err().to_string(), "length limit exceeded");
    }
}
