//! The README's commands, as a reader pastes them: each is in the table below, with the way to try it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssm_sim::Sim;

use crate::commands::world;
use crate::harness::greeting::greeted;
use crate::harness::process::{Running, Signal, run, run_with_input};
use crate::harness::sim::{assert_all_ended, sim};
use crate::harness::{Aws, World, read};

/// The commands, known by their first words.
const COMMANDS: [(&str, Trial); 9] = [
    ("RELEASE=https://", Trial::Install),
    (
        "aws ssm start-session --target i-0123456789abcdef0 --document-name",
        Trial::Until("Waiting for connections..."),
    ),
    ("aws ssm start-session --target i-0123456789abcdef0", Trial::Shell),
    ("session-manager-plugin shell", Trial::Shell),
    ("session-manager-plugin forward", Trial::Until("-> db.internal:5432")),
    ("session-manager-plugin ssh-config", Trial::SshConfig),
    // They run this test, or need an account.
    ("scripts/demo", Trial::IsExecutable),
    ("scripts/test", Trial::IsExecutable),
    ("scripts/verify-on-aws", Trial::IsExecutable),
];

/// Way to try a command.
#[derive(Clone, Copy)]
enum Trial {
    /// From an archive of this build instead of the release.
    Install,
    /// A shell that reads commands from stdin.
    Shell,
    /// A command that prints this text and stays until Ctrl-C.
    Until(&'static str),
    /// A block for `~/.ssh/config`; the connection that follows is tried in `commands::ssh`.
    SshConfig,
    /// A script that is not run here.
    IsExecutable,
}

#[test]
fn every_command_works() {
    let mut tried = Vec::new();
    for command in commands(&read(&root().join("README.md"))) {
        let row = COMMANDS.iter().find(|(words, _)| command.starts_with(words));
        let Some((words, trial)) = row else { panic!("the README has a command without a trial: {command}") };
        attempt(*trial, &command);
        tried.push(*words);
    }
    for (words, trial) in COMMANDS {
        let is_inline = matches!(trial, Trial::IsExecutable);
        assert!(is_inline || tried.contains(&words), "the README no longer has the command `{words}`");
    }
}

/// Downloads in the documents have the names that the release workflow publishes.
#[test]
fn downloads_have_the_names_of_a_release() {
    let world = World::new();
    let folder = world.path("release");
    std::fs::create_dir(&folder).expect("release folder");
    for published in [
        "0.1.0-x86_64-unknown-linux-gnu.tar.gz",
        "0.1.0-x86_64-unknown-linux-musl.tar.gz",
        "0.1.0-aarch64-unknown-linux-musl.tar.gz",
        "0.1.0-x86_64-apple-darwin.tar.gz",
        "0.1.0-aarch64-apple-darwin.tar.gz",
        "0.1.0-x86_64-windows.msi",
    ] {
        std::fs::write(folder.join(format!("session-manager-plugin-{published}")), published).expect("write");
    }
    run(world.command(root().join("scripts/packaging/stable-names")).arg(&folder)).assert_ok();
    let mut count = 0;
    for document in ["README.md", ".github/docs/install.md"] {
        let text = read(&root().join(document)).replace("$(uname -m)", "x86_64");
        for rest in text.split("$RELEASE/").skip(1) {
            let name = rest.split(['"', ' ']).next().unwrap_or_default();
            assert!(folder.join(name).exists(), "{document} downloads {name}");
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} downloads were read");
    let installer = folder.join("session-manager-plugin-x86_64-windows.msi");
    assert_eq!(read(&installer), "0.1.0-x86_64-windows.msi");
}

/// Settings files in the documents, each of which is accepted without a warning.
#[test]
fn every_settings_file_is_accepted() {
    let mut count = 0;
    for document in ["README.md", ".github/docs/tunnels.md"] {
        for file in blocks(&read(&root().join(document)), "toml") {
            let world = World::new();
            let folder = world.home().join(".config/session-manager-plugin");
            std::fs::create_dir_all(&folder).expect("config folder");
            std::fs::write(folder.join("config.toml"), &file).expect("config file");
            assert_eq!(greeted(&world, 1).errors(), "", "{document}: {file}");
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} settings files were read");
}

fn attempt(trial: Trial, command: &str) {
    let sim = sim();
    sim.set_host("db.internal", "127.0.0.1");
    let world = world(&sim);
    world.install_aws(Aws::V1, &sim.endpoint());
    match trial {
        Trial::Install => install(&world, command),
        Trial::Shell => shell(&world, &sim, command),
        Trial::Until(text) => {
            // A free port, since other tests run at the same time.
            let running = Running::spawn_without_stdin(&mut bash(&world, &command.replace("15432", "0")));
            running.stdout.wait_for(text);
            running.signal_group(Signal::INT);
            running.finish();
            if !sim.sessions().is_empty() {
                assert_all_ended(&sim);
            }
        }
        Trial::SshConfig => {
            std::fs::create_dir(world.home().join(".ssh")).expect("~/.ssh");
            let (block, _) = command.split_once(" && ").expect("a connection follows");
            run(&mut bash(&world, block)).assert_ok();
            let config = read(&world.home().join(".ssh/config"));
            assert!(config.contains("ProxyCommand "), "{config}");
        }
        Trial::IsExecutable => {
            let path = root().join(command.split(' ').next().expect("a path"));
            let mode = std::fs::metadata(&path).map(|data| data.permissions().mode());
            assert!(mode.is_ok_and(|mode| mode & 0o111 != 0), "{}", path.display());
        }
    }
}

/// Runs two commands in the shell that the command line opens.
fn shell(world: &World, sim: &Sim, command: &str) {
    let finished = run_with_input(&mut bash(world, command), b"echo $((40 + 2))\nexit\n");
    finished.assert_ok();
    assert!(finished.text().contains("42"), "{command}: {}", finished.text());
    assert_all_ended(sim);
}

/// Installs from a folder that takes the place of the release.
fn install(world: &World, block: &str) {
    let folder = world.path("release");
    std::fs::create_dir(&folder).expect("release folder");
    let machine = run(&mut bash(world, "uname -m")).text();
    let archive = folder.join(format!("session-manager-plugin-{}-linux.tar.gz", machine.trim()));
    let mut tar = world.command("tar");
    tar.arg("-czhf").arg(&archive).arg("-C").arg(world.path("bin")).arg("session-manager-plugin");
    run(&mut tar).assert_ok();
    let (first, rest) = block.split_once('\n').expect("several lines");
    assert!(first.starts_with("RELEASE=https://"), "{first}");
    let rest = rest.trim_end().strip_suffix("session-manager-plugin doctor").expect("doctor comes last");
    run(&mut bash(world, &format!("RELEASE=file://{}\n{rest}", folder.display()))).assert_ok();
    let version = run(world.command(world.home().join(".local/bin/session-manager-plugin")).arg("--version"));
    assert_eq!(version.text().trim(), session_manager_plugin::COMPATIBLE_VERSION);
}

fn bash(world: &World, line: &str) -> Command {
    let mut command = world.command("/bin/bash");
    command.args(["-euo", "pipefail", "-c", line]);
    command
}

/// The commands of all `sh` blocks: one for each line, together with the lines that a backslash joins to it. A block that
/// begins with a variable is one command.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in blocks(text, "sh") {
        if block.starts_with("RELEASE=") {
            commands.push(block);
            continue;
        }
        let joined = block.replace("\\\n", " ");
        let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default());
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        commands.extend(lines.map(words).filter(|line| !line.is_empty()));
    }
    commands
}

/// The fenced blocks of a kind.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let fence = format!("```{kind}\n");
    let rest = text.split(&fence).skip(1);
    rest.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
