use std::time::Duration;

use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::SignalKind;

use super::*;

/// More than any of these tests should take.
const LONG: Duration = Duration::from_secs(20);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

#[tokio::test]
async fn signals_arrive() {
    let mut signals = Signals::install().unwrap();
    for (number, expected) in [
        (Number::TERM, Signal::Terminate),
        (Number::INT, Signal::Interrupt),
        (Number::QUIT, Signal::Quit),
        (Number::TSTP, Signal::Suspend),
        (Number::CONT, Signal::Continue),
        (Number::WINCH, Signal::WindowChanged),
        (Number::USR1, Signal::Usr1),
    ] {
        kill_process(getpid(), number).unwrap();
        assert_eq!(in_time(signals.recv()).await, expected);
    }
}

#[test]
fn ignored_signals_are_seen() {
    assert!(signals::is_ignored(SignalKind::pipe()), "as Rust starts every program");
    assert!(!signals::is_ignored(SignalKind::user_defined2()));
}

#[test]
fn control_bytes_are_the_official_plugin_s() {
    assert_eq!(Signal::Interrupt.control_byte(), Some(b'\x03'));
    assert_eq!(Signal::Quit.control_byte(), Some(b'\x1c'));
    assert_eq!(Signal::Suspend.control_byte(), Some(b'\x1a'));
    assert_eq!(Signal::Terminate.control_byte(), None);
}

/// A test runner has threads, so the variable may only be read.
#[test]
fn a_variable_is_left_alone_among_threads() {
    assert_eq!(take_var("PATH"), std::env::var_os("PATH"));
    assert!(std::env::var_os("PATH").is_some());
    for name in ["", "a=b", "a\0b", "SSM_PLUGIN_SURELY_NOT_SET"] {
        assert_eq!(take_var(name), None, "{name:?}");
    }
}
