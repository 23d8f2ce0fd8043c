//! Runs a program on a Windows console of its own, types what the test says, and tells what the console has become.
//!
//! `console-driver [<how>] <program> <arguments>...`, driven by lines on stdin. Each answer is one line on stdout.
//!
//! | line | does | answer |
//! |---|---|---|
//! | (at the start) | starts the program | `started`, modes |
//! | `key <down> <code> <unit> <state>` | one key event, numbers in decimal | |
//! | `type <units in hex>` | a key of each UTF-16 unit, four digits each | |
//! | `modes` | | `modes <input> <output> <input code page> <output code page>` |
//! | `resize <columns> <rows>` | sets window and buffer | |
//! | `screen` | | `screen` and the lines of the window, in one |
//! | `interrupt` | Ctrl-C, to all on the console | |
//! | `event <number>` | a control event to the program alone, such as 1 (Ctrl-Break), 2 (its console is closed), 5 (logoff), 6 (shutdown) | |
//! | `wait` | waits for the program's end | `ended <status>` |
//!
//! Options: `--console` (also without), `--stdout=read-only` (a handle that the console's mode cannot be set
//! with), `--no-console` (the streams of this process, for a parent of any name: nothing is answered),
//! `--stdin=<pipe>` (a named pipe of that name, which `type` writes to; stdout and stderr are this process's).
//!
//! `console-driver --connect=<port>` starts no program: it connects to that port of this machine and ends with the connection,
//! which in turn shows to the other end when this process is gone.

#[cfg(windows)]
mod windows;

fn main() {
    #[cfg(windows)]
    windows::main();
    #[cfg(not(windows))]
    println!("only Windows has such consoles");
}
