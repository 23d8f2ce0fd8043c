//! Commands of our own, by hand and by real OpenSSH: no AWS CLI anywhere.

mod arguments;
mod bare;
mod forward;
mod job_control;
mod names;
mod run;
mod shell;
mod ssh;

use std::process::Command;

use ssm_sim::Sim;

use crate::harness::World;

/// A world in which the simulator is AWS.
pub fn world(sim: &Sim) -> World {
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    world
}

/// The plugin with these arguments.
pub fn plugin(world: &World, words: &[&str]) -> Command {
    let mut command = world.plugin();
    command.args(words);
    command
}
