//! Memory that a hostile peer can make the program hold: each limit with the input that is worst for it.
//!
//! A [`bursts::Burst`] sends a few hundred of one kind of message; an attack repeats one burst, the mixture draws from all of
//! them. The figures are for the debug binary, whose code alone is larger than the release binary's memory at rest.

mod answers;
mod attack;
mod bursts;
mod clients;
mod mixed;
mod standard_streams;
mod victim;
mod websocket;

use self::victim::{Session, Unread, Victim, announce, assert_all};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::net::opened_port;

#[test]
fn a_forward_at_rest() {
    let gateway = Gateway::scripted(|socket| announce(socket, Session::Multiplexed));
    let mut victim = Victim::start(World::new(), &gateway, Unread::Nothing);
    opened_port(victim.stdout());
    victim.stdout().wait_for("Waiting for connections...");
    assert_all([victim.check_memory("at rest", AT_REST)]);
}

/// Memory of a forward that does nothing, in MiB. The release binary has about 10.
const AT_REST: usize = 36;
