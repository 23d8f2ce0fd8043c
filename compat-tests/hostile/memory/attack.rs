//! Bursts that are repeated until the plugin reads no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bursts::{Burst, each};
use super::victim::{Progress, Session, Unread, Victim, announce};
use crate::harness::World;
use crate::harness::gateway::Gateway;
use crate::harness::wire;

/// Messages that are repeated.
pub(super) struct Attack<'a> {
    pub(super) session: Session,
    pub(super) unread: Unread,
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// Attacks and their counts, one after the other.
    pub(super) bursts: &'a [(&'static str, Burst, usize)],
    /// MiB that the process may have held at most.
    pub(super) below: usize,
}

impl Attack<'_> {
    /// Plays the attack until all bursts are sent or the plugin stops reading. Fails when the memory exceeds the limit.
    pub(super) fn run(&self, name: &str) -> Result<(), String> {
        let (gateway, progress) = self.gateway();
        let mut world = World::new();
        for (name, value) in self.settings {
            world.set(name, value);
        }
        let mut victim = Victim::start(world, &gateway, self.unread);
        let _client = (self.unread == Unread::Client).then(|| victim.client());
        progress.await_end(&victim);
        victim.check_memory(name, self.below)
    }

    fn gateway(&self) -> (Gateway, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        let (session, bursts) = (self.session, self.bursts.to_vec());
        let (waits, seen) = (self.unread == Unread::Client, Arc::clone(&progress));
        let gateway = Gateway::scripted(move |socket| {
            announce(socket, session);
            if waits && socket.input_of(wire::PAYLOAD_OUTPUT).is_none() {
                return;
            }
            let mut flood = socket.flood();
            for (name, burst, times) in &bursts {
                println!("{name}");
                let mut play = || {
                    seen.bursts.fetch_add(1, Ordering::SeqCst);
                    burst(&mut flood)
                };
                if !each(*times, &mut play) {
                    break;
                }
            }
            flood.flush();
            seen.is_done.store(true, Ordering::SeqCst);
        });
        (gateway, progress)
    }
}
