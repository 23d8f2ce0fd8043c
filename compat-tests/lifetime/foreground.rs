//! A terminal that others use, too: filters behind stdout, a shell that takes it back, one that goes away.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use portable_pty::{PtySize, native_pty_system};
use rustix::process::{Signal, kill_process};

use super::processes;
use super::terminal::{Terminal, to_pid};
use super::*;
use crate::harness::net::eventually;
use crate::harness::sim::await_pings;

/// `aws … | sed -u 's/\r$//'`: the filter writes plain newlines, and the terminal has to make returns of them.
#[test]
fn a_filter_behind_stdout_writes_lines_that_begin_at_the_left() {
    let (world, sim) = (World::new(), sim());
    let started = interactive(&sim, "printf 'one\\ntwo\\nthree\\n'; sleep 1000");
    let command = started.command(&world);
    let mut shell = world.command("/bin/sh");
    shell
        .args(["-c", "\"$@\" | sed -u 's/\\r$//'", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Terminal::spawn(&shell);
    terminal.wait_for("three");
    let screen = terminal.screen.text();
    assert!(screen.contains("one\r\ntwo\r\nthree"), "a staircase: {screen:?}");
    assert!(terminal.is_changed(), "keys go to the remote as they are");
    let plugin = processes::plugins(&world).pop().expect("the plugin");
    kill_process(to_pid(plugin.pid), Signal::TERM).expect("signal");
    terminal.finish_within(PROMPT);
    terminal.assert_restored();
}

/// Without a process group of its own `timeout` ends as soon as it has killed `aws`, and the shell takes the terminal as
/// it finds it: before us, or after.
#[test]
fn a_killed_aws_under_timeout_leaves_an_interactive_shell_its_terminal() {
    let (world, sim) = (World::new(), sim());
    let mut bash = world.command("/bin/bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("PS1", "local> ").env("HISTFILE", "");
    let mut terminal = Terminal::spawn(&bash);
    terminal.wait_for("local> ");
    for _ in 0..3 {
        let started = Started::at(&sim.endpoint(), None, json!({}));
        let command = under_the_cli(&world, &started.command(&world));
        let script = world.path("line");
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        let words: Vec<_> = command.get_args().map(quoted).collect();
        let line = format!(
            "export AWS_SSM_START_SESSION_RESPONSE={}\ntimeout --foreground 1000 {} {}\n",
            quoted(started.response.to_string().as_ref()),
            quoted(command.get_program()),
            words.join(" ")
        );
        std::fs::write(&script, line).expect("write the script");
        terminal.send(format!("source {}\r", script.display()));
        terminal.wait_for(prompt());
        assert!(terminal.is_changed());
        // The time is up.
        let plugin = processes::plugins(&world).pop().expect("the plugin");
        let cli = processes::read(plugin.parent).expect("the CLI");
        kill_process(to_pid(cli.parent), Signal::ALARM).expect("signal `timeout`");
        terminal.wait_for("local> ");
        // None of the four is off, at the latest after some lines: bash may have begun one before us.
        eventually("the terminal is as it was", || {
            std::thread::sleep(Duration::from_millis(100));
            terminal.send(STATE);
            terminal.wait_for("modes-");
            terminal.wait_for("-end") == "0-end"
        });
        let left = processes::left_after(PROMPT, || processes::plugins(&world));
        assert!(left.is_empty(), "{left:?}");
        assert_ended(&sim, started.id());
    }
    terminal.send("exit\r");
    terminal.finish_within(PROMPT);
}

/// After `fg` as at the start: what cannot be had costs a line, not the session.
#[test]
fn a_terminal_without_raw_mode_after_a_stop_is_reported() {
    let (mut world, sim) = (World::new(), sim());
    world.set("SSM_PLUGIN_STATUS", "always");
    world.set("SSM_PLUGIN_PING_INTERVAL", "1");
    let started =
        interactive(&sim, &format!("echo {UP}; while [ ! -e go ]; do sleep 0.1; done; echo two-$((1+1))"));
    // Not the controlling terminal, so that we get no hangup when it goes.
    let pair = native_pty_system()
        .openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 })
        .expect("a pty");
    let name = pair.master.tty_name().expect("its name");
    let stdin: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).open(name).expect("open").into();
    let mut command = started.command(&world);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start");
    // The command holds a copy of the terminal.
    drop(command);
    let stdout = Output::read(child.stdout.take().expect("stdout"));
    let stderr = Output::read(child.stderr.take().expect("stderr"));
    stdout.wait_for(UP);
    let pid = to_pid(child.id());
    kill_process(pid, Signal::STOP).expect("stop");
    drop(pair);
    kill_process(pid, Signal::CONT).expect("continue");
    stderr.wait_for("cannot switch the terminal to raw mode: ");
    let id = child.id();
    eventually("it goes on", || processes::read(id).is_some());
    await_pings(&sim, started.id(), 2);
    let ended = child.try_wait().expect("its state");
    let _ = kill_process(pid, Signal::TERM);
    let status = child.wait().expect("its end");
    assert!(ended.is_none(), "it ended with {ended:?}: {}{}", stdout.text(), stderr.text());
    assert_eq!(status.code(), Some(0));
    assert_ended(&sim, started.id());
}

/// Says how many of four modes are off. The word is not in what is typed, which may be echoed.
const STATE: &str =
    "echo mo\"\"des-$(stty -a </dev/tty | grep -ow -e -echo -e -icanon -e -opost -e -isig | wc -l)-end\r";
