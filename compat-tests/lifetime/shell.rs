//! Shells on a terminal: escapes, pastes, what passes through.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use ssm_sim::agent::AgentOptions;
use ssm_sim::{Config, Way};

use super::terminal::Terminal;
use super::*;
use crate::harness::net::random_bytes;
use crate::harness::process::Running;
use crate::harness::sim::{start, unpaced_sim};

/// A shell at its prompt.
#[track_caller]
fn shell(world: &World, sim: &Sim) -> (Terminal, String) {
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let terminal = Terminal::spawn(&started.command(world));
    terminal.wait_for(prompt());
    (terminal, started.id().to_owned())
}

#[test]
fn tilde_dot_ends_the_session() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, id) = shell(&world, &sim);
    // Not within a line.
    terminal.send("echo a~.b\r");
    terminal.wait_for("a~.b\r\na~.b");
    terminal.send("\r~.");
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
    assert_ended(&sim, &id);
}

/// The way out when the network is gone and the keyboard is all there is.
#[test]
fn tilde_dot_works_while_the_network_is_away() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, _) = shell(&world, &sim);
    sim.outage(Duration::from_secs(3600));
    terminal.wait_for("reconnecting");
    terminal.send("\r~.");
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
}

/// And when a paste fills everything between here and there.
#[test]
fn tilde_dot_works_behind_a_stalled_paste() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, id) = shell(&world, &sim);
    sim.stall(&id, Way::Both, Duration::from_secs(3600));
    let mut keyboard = terminal.keyboard();
    let typist = std::thread::spawn(move || {
        // More than the window takes, and less than what may wait.
        let _ = keyboard.write_all(&b"echo line\r".repeat(10_000));
        let _ = keyboard.write_all(b"\r~.");
        keyboard
    });
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
    drop(typist);
}

#[test]
fn tilde_question_mark_helps() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, _) = shell(&world, &sim);
    terminal.send("\r~?");
    let help = terminal.wait_for("immediately after newline.)\r\n");
    for escape in ["~.", "~#", "~-", "~?", "~~"] {
        assert!(help.contains(&format!("\r\n  {escape} - ")), "no {escape} in {help:?}");
    }
    terminal.send("exit\r");
    assert!(terminal.finish_within(PATIENCE).success());
}

/// Typed at a prompt, where the state once stood in its way.
#[test]
fn a_home_directory_that_begins_with_s_reaches_the_remote() {
    let (world, sim) = (World::new(), sim());
    let started =
        interactive(&sim, &format!("stty raw -echo; echo {UP}; head -c 11 | od -An -c; sleep 1000"));
    let mut terminal = Terminal::spawn(&started.command(&world));
    terminal.wait_for(UP);
    terminal.send("\r~ssm-user/");
    terminal.wait_for("\\r   ~   s   s   m   -   u   s   e   r   /");
    terminal.signal(Signal::TERM);
    assert!(terminal.finish_within(PROMPT).success());
}

/// Stdout may be a file.
#[test]
fn escapes_are_answered_on_stderr() {
    let (world, sim) = (World::new(), sim());
    let started = Started::at(&sim.endpoint(), None, json!({}));
    let command = started.command(&world);
    let mut shell = world.command("/bin/sh");
    shell.args(["-c", "\"$@\" >out", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env("AWS_SSM_START_SESSION_RESPONSE", started.response.to_string());
    let mut terminal = Terminal::spawn(&shell);
    let shown = || std::fs::read_to_string(world.home().join("out")).unwrap_or_default();
    crate::harness::net::eventually("the prompt", || shown().ends_with(prompt()));
    // Stdout is not this terminal, so that it adds a return to a newline, besides ours.
    let screen = terminal.screen.clone();
    let answered = |words: &str| {
        screen.wait_until(words, |shown| String::from_utf8_lossy(shown).replace('\r', "").contains(words));
    };
    terminal.send("\r~?");
    answered(
        "\nSupported escape sequence commands:\n  ~? - this help message\n  \
         ~~ - send the ~ character to the remote target\n  \
         ~- - disable escape sequences for the rest of this session\n  \
         ~. - disconnect and terminate session\n  ~# - show the state of the connection\n\
         (Note that escapes are only recognized immediately after newline.)\n",
    );
    terminal.send("~-");
    answered("\nEscape sequences disabled for this session.\n");
    terminal.send("exit\r");
    assert!(terminal.finish_within(PATIENCE).success());
    assert!(!shown().contains("scape"), "{:?}", shown());
}

/// And a session that hangs from the start can be left.
#[test]
fn escapes_are_typed_from_the_start_and_on_terminals_only() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, id) = shell(&world, &sim);
    terminal.send("~.");
    assert!(terminal.finish_within(PROMPT).success());
    assert_ended(&sim, &id);

    let started = interactive(&sim, &format!("stty raw -echo; echo {UP}; head -c 3 | od -An -c; sleep 1000"));
    let mut plugin = Running::spawn(&mut started.command(&world));
    plugin.stdout.wait_for(UP);
    plugin.send("\r~.");
    plugin.stdout.wait_for("\\r   ~   .");
    plugin.signal(Signal::TERM);
    plugin.finish_within(PROMPT).assert_ok();
}

#[test]
fn tilde_hash_shows_the_state() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, id) = shell(&world, &sim);
    terminal.send("\r~#");
    // A line of its own, although the terminal is raw.
    terminal.wait_for(&format!("\r\nsession-manager-plugin: session {id}: connected, round trip "));
    terminal.wait_for("\r\n");
    terminal.send("exit\r");
    assert!(terminal.finish_within(PATIENCE).success());
}

/// Input that the remote receives, as it reports it.
#[test]
fn tilde_minus_switches_escapes_off_and_two_are_one() {
    let (world, sim) = (World::new(), sim());
    let started =
        interactive(&sim, &format!("stty raw -echo; echo {UP}; head -c 16 | od -An -c; sleep 1000"));
    let mut terminal = Terminal::spawn(&started.command(&world));
    terminal.wait_for(UP);
    // A tilde for two, both bytes of an unknown one; then none of them means anything any more.
    terminal.send("\r~~a\r~x\r~-\r~.\r~?\r~~");
    terminal.wait_for("\\r   ~   a  \\r   ~   x  \\r  \\r   ~   .  \\r   ~   ?  \\r   ~   ~");
    terminal.signal(Signal::TERM);
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
}

/// smp#29, smp#79: `stty` and the line discipline kept ^S ^Q ^O ^Y ^V and others for themselves.
#[test]
fn every_key_reaches_the_remote() {
    let (world, sim) = (World::new(), sim());
    let started =
        interactive(&sim, &format!("stty raw -echo; echo {UP}; head -c 256 | od -An -v -tx1; sleep 1000"));
    let mut terminal = Terminal::spawn(&started.command(&world));
    terminal.wait_for(UP);
    let keys: Vec<u8> = (0..=255).collect();
    terminal.send(&keys);
    let arrived = terminal.screen.clone();
    let expected: String = keys.chunks(16).map(|line| hex::encode(line) + "\n").collect();
    arrived.wait_until("all 256 bytes", |screen| {
        let screen = String::from_utf8_lossy(screen);
        let (_, after) = screen.split_once(UP).unwrap_or_default();
        let lines: String = after
            .lines()
            .map(|line| line.replace([' ', '\r'], "") + "\n")
            .filter(|line| line.len() > 1)
            .collect();
        lines.ends_with(&expected)
    });
    terminal.signal(Signal::TERM);
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
}

#[test]
fn without_a_terminal_a_tilde_is_a_tilde() {
    let (world, sim) = (World::new(), sim());
    let started = interactive(&sim, &format!("echo {UP}; read a; read b; echo \"got $a $b\""));
    let mut plugin = Running::spawn(&mut started.command(&world));
    plugin.send("~.\n~?\n");
    plugin.stdout.wait_for("got ~. ~?");
    plugin.finish().assert_ok();
}

/// Lines of 76 characters, as of base64: a terminal in line mode takes at most 4095.
fn paste(length: usize) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = random_bytes(5, length);
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = if at % 77 == 76 { b'\r' } else { alphabet[usize::from(*byte) % 64] };
    }
    bytes.push(b'\r');
    bytes
}

/// As the remote's terminal turns it into a file.
fn digest(paste: &[u8]) -> String {
    let lines: Vec<u8> = paste.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect();
    hex::encode(Sha256::digest(lines))
}

/// smp#79, cli#7346: long pastes lost characters.
#[test]
fn a_paste_of_five_megabytes_arrives_whole() {
    let (mut world, sim) = (World::new(), unpaced_sim());
    world.set("SSM_PLUGIN_MESSAGE_RATE", "0");
    let (mut terminal, _) = shell(&world, &sim);
    let file = world.path("pasted");
    terminal.send(format!(
        "stty -echo; cat > {0}; stty echo; sha256sum {0}; echo end-$((1+1))\r",
        file.display()
    ));
    terminal.wait_for("\r\n");
    // `cat` has opened the file, and the echo is off.
    crate::harness::net::eventually("cat runs", || file.exists());
    let bytes = paste(5_000_000);
    let expected = digest(&bytes);
    let mut keyboard = terminal.keyboard();
    let typist = std::thread::spawn(move || {
        keyboard.write_all(&bytes).expect("type");
        keyboard.write_all(b"\x04").expect("type");
        keyboard
    });
    let sum = terminal.wait_for("end-2");
    let mut keyboard = typist.join().expect("the typist");
    let length = std::fs::metadata(&file).map(|file| file.len()).unwrap_or_default();
    assert!(sum.contains(&expected), "{length} of 5000001 bytes are there, not {expected}: {sum}");
    keyboard.write_all(b"exit\r").expect("type");
    assert!(terminal.finish_within(PATIENCE).success());
    terminal.assert_restored();
}

/// At the service's message rate a paste of 5 MB takes 5 s and more; Ctrl-C behind it, or SIGTERM at any time.
#[test]
fn a_paste_can_be_interrupted() {
    let (world, sim) = (World::new(), sim());
    let (mut terminal, id) = shell(&world, &sim);
    // A program that reads: before one that does not, the remote kernel keeps Ctrl-C waiting behind full lines.
    terminal.send("stty -echo; cat > /dev/null\r");
    terminal.wait_for("\r\n");
    let mut keyboard = terminal.keyboard();
    let typist = std::thread::spawn(move || {
        let _ = keyboard.write_all(&paste(1_000_000));
        let _ = keyboard.write_all(b"\x03");
        let _ = keyboard.write_all(b"\recho back-$((2+1))\r");
        keyboard
    });
    terminal.wait_for("back-3");
    let mut keyboard = typist.join().expect("the typist");
    keyboard.write_all(b"cat > /dev/null\r").expect("type");
    let typist = std::thread::spawn(move || {
        let _ = keyboard.write_all(&paste(5_000_000));
        keyboard
    });
    // In the middle of it.
    let sent = sim.session(&id).expect("the session").up.bytes;
    crate::harness::net::eventually("the paste is under way", || {
        sim.session(&id).is_some_and(|session| session.up.bytes > sent + 500_000)
    });
    terminal.signal(Signal::TERM);
    assert!(terminal.finish_within(PROMPT).success());
    terminal.assert_restored();
    assert_ended(&sim, &id);
    drop(terminal);
    drop(typist);
}

#[test]
fn characters_cut_by_messages_come_out_whole() {
    for payload in [1, 2, 3, 5, 7, 1024] {
        let agent = AgentOptions { payload, ..AgentOptions::default() };
        let sim = start(Config { agent, message_limit: None, ..Config::default() });
        let (world, text) = (World::new(), "aé€😀z".repeat(20));
        let started = interactive(&sim, &format!("printf '<%s>' '{text}'"));
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        let finished = plugin.finish();
        finished.assert_ok();
        assert!(finished.text().contains(&format!("<{text}>")), "messages of {payload}: {}", finished.text());
    }
}

/// A photograph by `cat`: not one byte may be another.
#[test]
fn binary_output_passes_unbroken() {
    let (mut world, sim) = (World::new(), unpaced_sim());
    world.set("SSM_PLUGIN_QUIET", "1");
    let bytes: Vec<u8> = random_bytes(3, 300_000).into_iter().chain(*b"its end").collect();
    let file = world.path("binary");
    std::fs::write(&file, &bytes).expect("write");
    for terminal in [false, true] {
        let started = if terminal {
            interactive(&sim, &format!("stty -opost; cat {}", file.display()))
        } else {
            batch(&sim, &format!("cat {}", file.display()))
        };
        let mut plugin = Running::spawn(&mut started.command(&world));
        let _stdin = plugin.take_stdin();
        let finished = plugin.finish();
        finished.assert_ok();
        let out = finished.stdout.strip_suffix(b"EXIT_CODE: 0").unwrap_or(&finished.stdout);
        let same = out.iter().zip(&bytes).take_while(|(one, other)| one == other).count();
        let (length, wanted) = (out.len(), bytes.len());
        assert!(out == bytes, "terminal {terminal}: {length} bytes for {wanted}, the first {same} are right");
    }
}

/// A slow reader of stdout: a pager, or a terminal that the user has stopped.
#[test]
fn a_flood_waits_for_a_slow_reader_and_can_be_ended() {
    let (world, sim) = (World::new(), unpaced_sim());
    let started = interactive(&sim, "yes");
    let mut command = started.command(&world);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start");
    let mut stdout = child.stdout.take().expect("piped stdout");
    std::io::Read::read_exact(&mut stdout, &mut vec![0; 100_000]).expect("some of it");
    // Nothing more is read; SIGTERM must still end it soon, whatever waits to be written.
    rustix::process::kill_process(super::terminal::to_pid(child.id()), Signal::TERM).expect("signal");
    let begin = Instant::now();
    while child.try_wait().expect("try_wait").is_none() {
        if begin.elapsed() > PROMPT {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it waits for a reader that reads nothing");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().expect("its status").code(), Some(0));
    drop(stdout);
    assert_ended(&sim, started.id());
}
