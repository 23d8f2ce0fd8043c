//! The local process: its arguments, environment, descriptors, signals and parent.
//!
//! With [`crate::term`] the only module that may hold `unsafe`. It has the same interface on every system; `windows` stands
//! in for the UNIX parts there.

mod argv;
#[cfg(unix)]
mod child;
#[cfg(unix)]
mod core_dump;
#[cfg(unix)]
mod descriptors;
mod env;
#[cfg(unix)]
mod group;
#[cfg(unix)]
mod network;
mod parent;
mod peer;
mod port_owner;
mod signal;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod socket_file;
#[cfg(windows)]
mod windows;

pub(crate) use self::argv::hide_argument;
pub(crate) use self::env::take_var;
pub(crate) use self::parent::Parent;
pub(crate) use self::peer::{PeerOwner, Stranger, peer_owner};
pub(crate) use self::port_owner::port_owner;
pub(crate) use self::signal::Signal;
#[cfg(all(windows, test))]
pub(crate) use self::windows::is_exclusive;
#[cfg(windows)]
pub(crate) use self::windows::{
    NetworkEvents, Signals, Tie, bind_exclusively, check_descriptors, descriptor_limit, forbid_core_dumps,
    is_in_foreground, pass_on, raise_descriptor_limit, spawn_tied, stop,
};
#[cfg(unix)]
pub(crate) use self::{
    child::{Tie, is_in_foreground, pass_on, spawn_tied, stop},
    core_dump::forbid_core_dumps,
    descriptors::{check_descriptors, descriptor_limit, raise_descriptor_limit, watch_readable},
    group::{group, group_of},
    network::NetworkEvents,
    signals::Signals,
    socket_file::bind_private,
};

#[cfg(all(test, unix))]
mod tests;
