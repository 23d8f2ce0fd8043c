//! The head of an HTTP request or answer, read and left whole.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads the head of an HTTP message up to and including its empty line.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LARGEST_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// Bytes in the head of a request.
const LARGEST_HEAD: usize = 16 << 10;
