//! The local process: its arguments, environment, descriptors, signals and parent.
//!
//! With [`crate::term`] the only module that may hold `unsafe`. It has the same interface on every system; `windows` stands
//! in for the UNIX parts there.

#[cfg(feature = "cli")]
mod argv;
#[cfg(all(unix, feature = "cli"))]
mod child;
#[cfg(all(unix, feature = "cli"))]
mod core_dump;
#[cfg(unix)]
mod descriptors;
#[cfg(feature = "cli")]
mod env;
#[cfg(all(unix, feature = "cli"))]
mod file_size;
#[cfg(all(unix, feature = "cli"))]
mod group;
#[cfg(unix)]
mod network;
#[cfg(feature = "cli")]
mod parent;
mod peer;
mod port_owner;
mod signal;
#[cfg(all(unix, feature = "cli"))]
mod signals;
#[cfg(unix)]
mod socket_file;
#[cfg(windows)]
mod windows;

#[cfg(feature = "cli")]
pub(crate) use self::argv::hide_argument;
#[cfg(feature = "cli")]
pub(crate) use self::env::take_var;
#[cfg(feature = "cli")]
pub(crate) use self::parent::Parent;
pub(crate) use self::peer::{PeerOwner, Stranger, peer_owner};
pub(crate) use self::port_owner::port_owner;
#[cfg(feature = "cli")]
pub(crate) use self::signal::Signal;
#[cfg(all(windows, test))]
pub(crate) use self::windows::is_exclusive;
#[cfg(windows)]
pub(crate) use self::windows::{NetworkEvents, bind_exclusively, check_descriptors, descriptor_limit};
#[cfg(all(windows, feature = "cli"))]
pub(crate) use self::windows::{
    Signals, Tie, forbid_core_dumps, is_in_foreground, pass_on, raise_descriptor_limit, spawn_tied, stop,
    survive_file_size_limit,
};
#[cfg(all(unix, feature = "cli"))]
pub(crate) use self::{
    child::{Tie, is_in_foreground, pass_on, spawn_tied, stop},
    core_dump::forbid_core_dumps,
    descriptors::{raise_descriptor_limit, watch_readable},
    file_size::survive_file_size_limit,
    group::{group, group_of},
    signals::Signals,
};
#[cfg(unix)]
pub(crate) use self::{
    descriptors::{check_descriptors, descriptor_limit},
    network::NetworkEvents,
    socket_file::bind_private,
};

#[cfg(all(test, unix))]
mod tests;
