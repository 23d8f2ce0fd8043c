//! The user of a session on standard streams: pipes in place of stdin and stdout, and a stream for its client.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::remote::{PROMPT, is_text};
use crate::session::port::MemoryStream;

/// The other ends of stdin and stdout.
pub(super) struct StandardStreams {
    keyboard: pipe::Sender,
    screen: pipe::Receiver,
}

/// State of the program, as far as it says what the end of stdout means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    /// The end was an orderly one.
    Over,
    /// Something has ended it.
    Failed,
}

impl StandardStreams {
    /// The other ends of these pipes.
    pub(super) fn new([keyboard, screen]: [OwnedFd; 2]) -> io::Result<StandardStreams> {
        let (keyboard, screen) =
            (pipe::Sender::from_owned_fd(keyboard)?, pipe::Receiver::from_owned_fd(screen)?);
        Ok(StandardStreams { keyboard, screen })
    }

    /// Types what `client` sends, and passes to it what the remote has written.
    pub(super) async fn carry(self, client: MemoryStream, running: watch::Receiver<Running>) {
        let StandardStreams { keyboard, screen } = self;
        // A user who has gone takes both streams along. Time jumps to the next timer when a pipe has something: never far.
        let leaving = async {
            while client.try_write(&[]).is_ok() {
                tokio::time::sleep(TICK).await;
            }
        };
        let typing = async {
            type_all(keyboard, &client).await;
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = show(screen, &client, running) => end,
            () = typing => None,
            () = leaving => None,
        };
        match end {
            Some(Running::Over) => {
                let _ = client.shutdown();
                drain(&client).await;
            }
            Some(_) => client.reset(),
            None => {}
        }
    }
}

/// Types all that comes from the client, then closes stdin.
async fn type_all(mut keyboard: pipe::Sender, client: &MemoryStream) {
    let mut bytes = BytesMut::new();
    while read(client, &mut bytes).await {
        if keyboard.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads until the client has gone.
async fn drain(client: &MemoryStream) {
    let mut bytes = BytesMut::new();
    while read(client, &mut bytes).await {}
}

/// Fills `bytes` with what comes next from the client. Returns false at the end.
async fn read(client: &MemoryStream, bytes: &mut BytesMut) -> bool {
    loop {
        let _ = client.readable().await;
        bytes.clear();
        bytes.reserve(PIECE);
        match client.try_read_buf(bytes) {
            Ok(count) => return count > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

/// Passes on what the remote writes after its prompt, up to the program's last words. Returns its end, or `None` when the
/// client has gone before.
async fn show(
    mut screen: pipe::Receiver,
    client: &MemoryStream,
    mut running: watch::Receiver<Running>,
) -> Option<Running> {
    let mut bytes = BytesMut::new();
    let mut has_begun = false;
    let (mut has_ended, mut is_last) = (false, false);
    loop {
        let read = tokio::select! {
            biased;
            read = screen.read_buf(&mut bytes) => read.unwrap_or(0),
            _ = running.wait_for(|running| *running != Running::Yes) => {
                is_last = true;
                read_rest(&screen, &mut bytes)
            }
        };
        if !has_begun && let Some(at) = bytes.windows(PROMPT.len()).position(|some| some == PROMPT) {
            has_begun = true;
            let _ = bytes.split_to(at + PROMPT.len());
        }
        if has_begun {
            let count = bytes.iter().position(|byte| !is_text(*byte)).unwrap_or(bytes.len());
            if !has_ended && pass(client, &bytes[..count]).await.is_err() {
                // The reader has gone: so does the pipe.
                return None;
            }
            has_ended |= count < bytes.len();
            bytes.clear();
        }
        if read == 0 || is_last {
            break;
        }
    }
    let end = *running.borrow();
    Some(end)
}

/// Reads what is in the pipe, whether the runtime has noticed it or not.
fn read_rest(screen: &pipe::Receiver, bytes: &mut BytesMut) -> usize {
    let before = bytes.len();
    let mut part = [0; PIECE];
    while let Ok(count @ 1..) = rustix::io::read(screen, &mut part) {
        bytes.extend_from_slice(&part[..count]);
    }
    bytes.len() - before
}

async fn pass(client: &MemoryStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        client.writable().await?;
        match client.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const PIECE: usize = 4 << 10;
const TICK: Duration = Duration::from_millis(20);
