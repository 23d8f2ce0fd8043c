//! The program itself: arguments, settings, diagnostics.

mod cli;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod events;
#[cfg(unix)]
mod logs;
#[cfg(unix)]
mod settings;
#[cfg(unix)]
mod wire_log;
