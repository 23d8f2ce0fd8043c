//! A machine that has nothing but the program, a shell and OpenSSH: no Python, no AWS CLI.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::world;
use crate::harness::net::{Server, echo_through};
use crate::harness::process::{Running, Signal, run, run_with_input};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::sshd::Sshd;
use crate::harness::{World, plugin, read, user};

/// A world whose PATH is one folder: the program, `sh`, and an `ssh` that reads this world's `~/.ssh/config` (it asks the
/// system for the user's home, not HOME).
fn few_programs(world: &mut World) {
    let folder = world.path("few");
    std::fs::create_dir(&folder).expect("folder");
    symlink(plugin(), folder.join("session-manager-plugin")).expect("symlink");
    symlink("/bin/sh", folder.join("sh")).expect("symlink");
    let ssh = folder.join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\nexec /usr/bin/ssh -F \"$HOME/.ssh/config\" \"$@\"\n").expect("ssh");
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).expect("mode");
    world.set("PATH", &folder.display().to_string());
}

#[test]
fn three_lines_of_the_readme_open_a_shell_a_tunnel_and_an_ssh() {
    let sim = sim();
    sim.set_host("db.internal", "127.0.0.1");
    let mut world = world(&sim);
    let (sshd, echo) = (Sshd::start(&world), Server::echo());
    few_programs(&mut world);
    for absent in ["aws", "python", "python3"] {
        assert!(!run(&mut world.shell(&format!("command -v {absent}"))).status.success(), "{absent} is here");
    }
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect(start).to_owned();

    let shell = line("session-manager-plugin shell ");
    let finished = run_with_input(&mut world.shell(&shell), b"echo $((40 + 2))\nexit\n");
    assert!(finished.assert_ok().text().contains("42"), "{}", finished.text());

    let forward = line("session-manager-plugin forward ");
    let forward = forward.replace("15432:", "0:").replace(":5432", &format!(":{}", echo.port()));
    let running = Running::spawn_without_stdin(&mut world.shell(&format!("exec {forward}")));
    let address = running.stdout.wait_for(&format!(" -> db.internal:{}\n", echo.port()));
    let port = address.split(" -> ").next().and_then(|address| address.rsplit(':').next()).expect("a port");
    assert_eq!(echo_through(port.parse().expect("a port"), b"through"), b"through");
    running.signal(Signal::TERM);
    running.finish();

    let folder = world.home().join(".ssh");
    std::fs::create_dir(&folder).expect("~/.ssh");
    let keys = world.path("ssh");
    let settings = format!(
        "Host *\n    Port {}\n    IdentityFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n    \
         StrictHostKeyChecking accept-new\n    BatchMode yes\n    LogLevel ERROR\n",
        sshd.port(),
        keys.join("user").display(),
        keys.join("known_hosts").display(),
    );
    std::fs::write(folder.join("config"), settings).expect("config");
    let ssh = line("session-manager-plugin ssh-config ").replace("ec2-user@", &format!("{}@", user()));
    let running = Running::spawn_without_stdin(&mut world.shell(&format!("{ssh} echo in")));
    running.stdout.wait_for("in\n");
    // ssh does not wait for its ProxyCommand, which would be killed with the group before it has ended the session.
    assert_all_ended(&sim);
    running.finish().assert_ok();
}
