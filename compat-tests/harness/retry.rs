//! Calls that a signal interrupts.

/// Repeats what a signal has interrupted. This process has children, whose ends are signals to it, and a read with a
/// timeout is not taken up again by the system.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
