//! The project around the program: its book, documents and scripts.

mod layers;
#[cfg(unix)]
mod link_places;
#[cfg(unix)]
mod readme;
#[cfg(unix)]
mod verify_on_aws;
mod wording;
