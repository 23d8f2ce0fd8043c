//! OpenSSH with the plugin itself as its ProxyCommand: ssh goes to the background, its proxy continues.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};

use super::processes;
use super::terminal::to_pid;
use super::*;
use crate::harness::net::eventually;
use crate::harness::process::run;
use crate::harness::sim::await_pings;
use crate::harness::sshd::{Sshd, client_config};
use crate::harness::{TARGET, required};

/// OpenSSH with the plugin itself as its ProxyCommand.
struct DirectSsh {
    world: World,
    sim: Sim,
    _sshd: Sshd,
    config: PathBuf,
}

impl DirectSsh {
    #[track_caller]
    fn new() -> DirectSsh {
        let (mut world, sim) = (World::new(), sim());
        world.set("SSM_PLUGIN_PING_INTERVAL", "1");
        let sshd = Sshd::start(&world);
        let port = sshd.port();
        let parameters = json!({"portNumber": [port.to_string()]});
        let started = Started::at(&sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
        let command = started.command(&world);
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        let words: Vec<_> = command.get_args().map(quoted).collect();
        let script = world.path("proxy");
        let text = format!(
            "export AWS_SSM_START_SESSION_RESPONSE={}\nexec {} {}\n",
            quoted(started.response.to_string().as_ref()),
            quoted(command.get_program()),
            words.join(" ")
        );
        std::fs::write(&script, text).expect("the proxy's script");
        let config = client_config(&world, port);
        let documented = std::fs::read_to_string(&config).expect("ssh config");
        let direct = documented.lines().map(|line| {
            let is_proxy = line.trim_start().starts_with("ProxyCommand");
            if is_proxy { format!("    ProxyCommand sh {}\n", script.display()) } else { format!("{line}\n") }
        });
        std::fs::write(&config, direct.collect::<String>()).expect("ssh config");
        DirectSsh { world, sim, _sshd: sshd, config }
    }

    fn ssh(&self, words: &[&str]) -> Command {
        let mut command = self.world.command(required("/usr/bin/ssh"));
        command.arg("-F").arg(&self.config).args(words);
        command
    }
}

impl Drop for DirectSsh {
    fn drop(&mut self) {
        for process in processes::of(&self.world) {
            let _ = kill_process(to_pid(process.pid), Signal::KILL);
        }
    }
}

/// It forks when it has logged in, and the process that started the ProxyCommand ends.
#[test]
fn ssh_in_the_background_keeps_its_direct_proxy() {
    let ssh = DirectSsh::new();
    let path = ssh.world.path("out");
    let mut command = ssh.ssh(&["-f", TARGET, "sleep 2; echo done"]);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&path).expect("a file")).stderr(Stdio::null());
    assert!(command.status().expect("ssh").success());
    eventually("the remote command's word", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text == "done\n")
    });
    eventually("all have ended", || processes::of(&ssh.world).is_empty());
    crate::harness::sim::assert_all_ended(&ssh.sim);
}

#[test]
fn ssh_control_persist_keeps_its_direct_proxy() {
    let ssh = DirectSsh::new();
    let control = format!("ControlPath={}", ssh.world.path("ctl").display());
    let shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", &control, TARGET];
    // The master that stays holds our pipes: files do instead.
    let say = |word: &str| {
        let out = ssh.world.path(word);
        let mut command = ssh.ssh(&shared);
        command.args(["echo", word]).stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(std::fs::File::create(&out).expect("a file"));
        assert!(command.status().expect("ssh").success(), "{word}");
        std::fs::read_to_string(out).expect("its output")
    };
    assert_eq!(say("one"), "one\n");
    await_pings(&ssh.sim, &ssh.sim.sessions()[0].id, 2);
    // The response is good for one connection only, so this goes through the first one.
    assert_eq!(say("two"), "two\n");
    run(&mut ssh.ssh(&["-o", &control, "-O", "exit", TARGET])).assert_ok();
    eventually("all have ended", || processes::of(&ssh.world).is_empty());
    crate::harness::sim::assert_all_ended(&ssh.sim);
}
