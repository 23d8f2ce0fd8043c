//! The AWS side of a session: credentials, signatures, and refusals by the service.

mod cli_cache;
mod credentials;
mod encryption;
mod ending;
mod renewal;
mod resume;
mod secrets;
mod settings;
mod signing;

use std::process::Command;

use serde_json::{Value, json};
use ssm_sim::{Config, Credentials, DEFAULT_TARGET, Sim};

use crate::harness::net::opened_port;
use crate::harness::process::Running;
use crate::harness::sim::start;
use crate::harness::{REGION, World};

/// The key pair of [`World::new`].
fn known() -> Credentials {
    Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
    }
}

/// Verifies signatures and demands them.
fn strict() -> Config {
    Config { credentials: Some(known()), require_signed_open: true, ..Config::default() }
}

/// One session and how its plugin is called.
struct Call {
    response: Value,
    request: Value,
    region: String,
    profile: String,
    endpoint: String,
}

impl Call {
    fn new(sim: &Sim, request: Value) -> Call {
        let response = sim.start_session(&request).expect("StartSession");
        Call {
            response,
            request,
            region: REGION.to_owned(),
            profile: String::new(),
            endpoint: sim.endpoint(),
        }
    }

    fn shell(sim: &Sim) -> Call {
        Call::new(sim, json!({ "Target": DEFAULT_TARGET }))
    }

    fn port(sim: &Sim, port: u16) -> Call {
        let parameters = json!({ "portNumber": [port.to_string()], "localPortNumber": ["0"] });
        let document = "AWS-StartPortForwardingSession";
        Call::new(
            sim,
            json!({ "Target": DEFAULT_TARGET, "DocumentName": document, "Parameters": parameters }),
        )
    }

    fn command(sim: &Sim, command: &str) -> Call {
        let parameters = json!({ "command": [command], "separateOutputStream": ["true"] });
        let document = "AWS-StartNonInteractiveCommand";
        Call::new(
            sim,
            json!({ "Target": DEFAULT_TARGET, "DocumentName": document, "Parameters": parameters }),
        )
    }

    fn profile(mut self, profile: &str) -> Call {
        profile.clone_into(&mut self.profile);
        self
    }

    fn id(&self) -> &str {
        self.response["SessionId"].as_str().expect("a session id")
    }

    fn plugin(&self, world: &World) -> Command {
        let mut command = world.plugin();
        command.env("AWS_SSM_START_SESSION_RESPONSE", self.response.to_string());
        let request = self.request.to_string();
        command.args(["AWS_SSM_START_SESSION_RESPONSE", &self.region, "StartSession"]);
        command.args([&self.profile, &request, &self.endpoint]);
        command
    }

    fn spawn(&self, world: &World) -> Running {
        Running::spawn_without_stdin(&mut self.plugin(world))
    }
}

/// A forwarded port with its plugin.
struct Forward {
    plugin: Running,
    port: u16,
    id: String,
}

impl Forward {
    #[track_caller]
    fn start(world: &World, call: &Call) -> Forward {
        let plugin = call.spawn(world);
        let port = opened_port(&plugin.stdout);
        Forward { plugin, port, id: call.id().to_owned() }
    }
}

/// A world that has no credentials at all, and nowhere to get them.
fn world_without_credentials() -> World {
    let mut world = World::new();
    world.unset(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    world
}

/// `~/.aws/config` of a world.
fn write_config(world: &World, text: &str) {
    write(world, ".aws/config", text);
}

fn write(world: &World, name: &str, text: &str) {
    write_bytes(world, name, text.as_bytes());
}

fn write_bytes(world: &World, name: &str, text: &[u8]) {
    let path = world.home().join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
    std::fs::write(path, text).expect("write");
}

fn strict_sim() -> Sim {
    start(strict())
}
