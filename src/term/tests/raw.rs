use std::os::unix::process::CommandExt;
use std::sync::{Mutex, PoisonError};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use rustix::process::{Signal as Number, kill_process};
use rustix::termios::Termios;

use super::*;
use crate::panics;
use crate::process::Signals;
use crate::term::raw::{is_same_terminal, restore, without};

/// There is one saved terminal per process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn modes(fd: impl std::os::fd::AsFd) -> String {
    format!("{:?}", tcgetattr(fd).unwrap())
}

fn termios(fd: impl std::os::fd::AsFd) -> Termios {
    tcgetattr(fd).unwrap()
}

#[test]
fn every_byte_passes_and_the_modes_come_back() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut master, slave) = pty();
    let before = modes(&slave);
    let raw = RawMode::on(slave.try_clone().unwrap(), true).unwrap();
    assert!(is_raw());

    // ^C ^Z ^\ ^S ^Q ^V ^O ^Y ^D, CR, DEL (smp#29, smp#79).
    let typed = b"\x03\x1a\x1c\x13\x11\x16\x0f\x19\x04\r\x7f~\xff\x00";
    master.write_all(typed).unwrap();
    let typed_in = read_in_background(std::fs::File::from(slave.try_clone().unwrap()), typed.len());
    assert_eq!(typed_in.recv_timeout(LONG).unwrap(), typed);

    let shown = b"a\nb\r\nc\t\x1b[0m";
    rustix::io::write(&slave, shown).unwrap();
    let shown_out = read_in_background(master.try_clone().unwrap(), shown.len());
    assert_eq!(shown_out.recv_timeout(LONG).unwrap(), shown, "no echo, no added returns");

    drop(raw);
    assert!(!is_raw());
    assert_eq!(modes(&slave), before);
}

#[test]
fn restoring_is_idempotent_and_entering_again_works() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_master, slave) = pty();
    let before = modes(&slave);
    restore();
    let raw = RawMode::on(slave.try_clone().unwrap(), true).unwrap();
    let while_raw = modes(&slave);
    assert_ne!(while_raw, before);

    let mut shell = termios(&slave);
    shell.local_modes.insert(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&slave, OptionalActions::Now, &shell).unwrap();
    raw.reenter().unwrap();
    assert_eq!(modes(&slave), while_raw);

    restore();
    restore();
    assert_eq!(modes(&slave), before);
    raw.reenter().unwrap();
    assert_eq!(modes(&slave), before, "nothing to enter after a restore");
    drop(raw);
    assert_eq!(modes(&slave), before);
}

#[test]
fn a_panic_in_any_thread_restores() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_master, slave) = pty();
    let before = modes(&slave);
    let raw = RawMode::on(slave.try_clone().unwrap(), true).unwrap();
    thread::spawn(|| panic!("expected by this test")).join().unwrap_err();
    assert_eq!(modes(&slave), before);
    drop(raw);
}

/// The session continues after it, and still needs raw mode.
#[test]
fn a_contained_panic_leaves_raw_mode() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_master, slave) = pty();
    let before = modes(&slave);
    let raw = RawMode::on(slave.try_clone().unwrap(), true).unwrap();
    let entered = modes(&slave);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let panic = || async { panic!("expected by this test") };
    runtime.block_on(panics::contain::<()>(panic())).unwrap_err();
    assert_eq!(modes(&slave), entered);
    runtime.block_on(panics::catch_last::<()>(panic())).unwrap_err();
    assert_eq!(modes(&slave), before);
    drop(raw);
}

/// Runs [`child`] on a separate terminal, as a shell would, and returns whether the terminal was raw while it ran
/// and whether its modes came back.
fn on_a_terminal(ending: &str) -> (bool, bool) {
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let number = pair.master.as_raw_fd().unwrap();
    // SAFETY: `pair.master` stays open to the end of this function.
    let master = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let before = modes(master);

    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "term::tests::raw::child", "--nocapture"]);
    command.env(ENDING, ending);
    let mut child = pair.slave.spawn_command(command).unwrap();

    let screen = Screen::read(pair.master.try_clone_reader().unwrap());
    screen.wait_for(READY);
    // It writes a newline and an end-of-file when dropped.
    let mut writer = pair.master.take_writer().unwrap();
    let raw = !termios(master).local_modes.contains(LocalModes::ISIG);
    if ending == "signal" {
        let id = i32::try_from(child.process_id().unwrap()).unwrap();
        kill_process(rustix::process::Pid::from_raw(id).unwrap(), Number::TERM).unwrap();
    } else {
        writer.write_all(b"x").unwrap();
    }
    if ending.starts_with("background") {
        screen.wait_for(LOST);
        writer.write_all(b"for the shell").unwrap();
    }
    screen.wait_for(DONE);
    // Looked at while it still runs: the end of a session resets a pseudo terminal.
    let restored = modes(master) == before;
    child.kill().unwrap();
    child.wait().unwrap();
    (raw, restored)
}

/// Output of the child, read by a thread so that waiting for it can time out.
struct Screen(std::sync::mpsc::Receiver<Vec<u8>>);

impl Screen {
    fn read(mut reader: impl Read + Send + 'static) -> Screen {
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Screen(receiver)
    }

    fn wait_for(&self, marker: &str) {
        let deadline = std::time::Instant::now() + LONG;
        let mut shown = String::new();
        while !shown.contains(marker) {
            assert!(!shown.contains(FAILED), "{shown}");
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.0.recv_timeout(left) {
                Ok(bytes) => shown += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("{error} after {shown:?}"),
            }
        }
    }
}

#[test]
fn a_program_leaves_its_terminal_as_it_was() {
    for ending in ["return", "panic", "signal"] {
        assert_eq!(on_a_terminal(ending), (true, true), "{ending}");
    }
}

/// A shell that lost its job `aws` has the terminal again and has set it; the plugin, still running, must
/// neither change it nor be stopped for trying.
#[test]
fn in_the_background_the_terminal_is_the_shell_s() {
    assert_eq!(on_a_terminal("background-set"), (true, false));
}

/// A shell that takes the terminal as its job has left it.
#[test]
fn in_the_background_a_terminal_left_raw_is_restored() {
    assert_eq!(on_a_terminal("background"), (true, true));
}

/// A line editor that was faster than we, and puts our modes back when the line is done.
#[test]
fn in_the_background_a_line_editor_is_let_finish() {
    assert_eq!(on_a_terminal("background-edited"), (true, true));
}

#[test]
fn output_modes_stay_where_others_write_to_the_terminal() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (master, slave) = pty();
    let before = modes(&slave);
    let raw = RawMode::on(slave.try_clone().unwrap(), false).unwrap();
    rustix::io::write(&slave, b"a\n").unwrap();
    let shown = read_in_background(master.try_clone().unwrap(), 3);
    assert_eq!(shown.recv_timeout(LONG).unwrap(), b"a\r\n", "others' newlines are newlines");
    assert!(
        !termios(&slave).local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    );
    drop(raw);
    assert_eq!(modes(&slave), before);
}

#[test]
fn one_terminal_or_two() {
    let ((_master, one), (_other_master, other)) = (pty(), pty());
    let name = rustix::termios::ttyname(&one, Vec::new()).unwrap();
    let again = std::fs::File::open(name.to_str().unwrap()).unwrap();
    assert!(is_same_terminal(&one, one.try_clone().unwrap()));
    assert!(is_same_terminal(&one, &again));
    assert!(!is_same_terminal(&one, &other));
    let (reader, writer) = io::pipe().unwrap();
    assert!(!is_same_terminal(&one, writer));
    assert!(!is_same_terminal(reader, &one));
    assert!(!is_same_terminal(&one, tempfile::tempfile().unwrap()));
}

/// The program of [`on_a_terminal`].
#[test]
#[ignore = "a child process of a_program_leaves_its_terminal_as_it_was"]
fn child() {
    let ending = std::env::var(ENDING).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = async {
        let mut signals = Signals::install().unwrap();
        let raw = RawMode::enter().unwrap().expect("stdin is a terminal");
        let mut input = Stdin::open().unwrap();
        let mut output = Output::stdout().unwrap();
        output.push(READY.as_bytes());
        output.flush().await.unwrap();
        tokio::select! {
            _ = signals.recv() => {}
            bytes = input.read() => assert_eq!(bytes.unwrap(), "x"),
        }
        if ending.starts_with("background") {
            let mut other = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
            let group = rustix::process::Pid::from_child(&other);
            rustix::termios::tcsetpgrp(io::stdin(), group).unwrap();
            let left = termios(io::stdin());
            let set = |mode: &Termios| {
                without(libc::SIGTTOU, || tcsetattr(io::stdin(), OptionalActions::Now, mode)).unwrap();
            };
            if ending == "background-set" {
                let mut shell = left.clone();
                shell.local_modes.insert(LocalModes::ISIG | LocalModes::IEXTEN);
                set(&shell);
            }
            if ending == "background-edited" {
                let mut editor = left.clone();
                editor.local_modes.insert(LocalModes::ISIG);
                set(&editor);
            }
            drop(raw);
            if ending == "background-edited" {
                tokio::time::sleep(Duration::from_millis(50)).await;
                set(&left);
                settled().await;
            }
            rustix::io::write(io::stdout(), LOST.as_bytes()).unwrap();
            let typed = tokio::time::timeout(Duration::from_millis(500), input.read()).await;
            assert!(typed.is_err(), "what is typed now is the shell's");
            other.kill().unwrap();
            other.wait().unwrap();
        }
        assert_ne!(ending, "panic");
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(session)));
    let as_meant = ended.is_err() == (ending == "panic");
    rustix::io::write(io::stdout(), if as_meant { DONE } else { FAILED }.as_bytes()).unwrap();
    thread::park_timeout(LONG);
}

const ENDING: &str = "TERM_TEST_ENDING";
const READY: &str = "<raw>";
const LOST: &str = "<background>";
const DONE: &str = "<ended>";
const FAILED: &str = "<failed>";
