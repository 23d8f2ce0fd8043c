//! The shortest session.

use super::World;
use super::api::Started;
use super::gateway::{Gateway, Socket};
use super::process::{Finished, Running};
use super::wire;

/// A shell session in which the remote says `hello` in `messages` messages, and ends.
#[track_caller]
pub fn greeted(world: &World, messages: usize) -> Finished {
    let gateway = Gateway::scripted(move |socket: &mut Socket| {
        for _ in 0..messages {
            let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
            socket.acknowledged(number);
        }
        socket.close("");
    });
    let mut running = Running::spawn(&mut Started::of(&gateway).command(world));
    let _stdin = running.take_stdin();
    running.finish()
}
