//! Streams over a session of [`forebay_mux`]: what planes that connect processes have in common.
//!
//! A [`SharedSession`] is one end of a session; a [`Driver`] takes its bytes to and from a
//! connection; an [`Answer`] is a client's stream, and [`Serving`] has the answers of a server.
//! [`Sessions`] has those that a process is the client of.

mod answer;
mod carrier;
mod confirm;
#[cfg(feature = "tcp")]
mod connection;
mod driver;
mod error;
mod messages;
mod metrics;
mod peer_watch;
mod serve;
mod sessions;
mod shared;
mod upkeep;

pub(crate) use answer::Answer;
pub(crate) use carrier::Carrier;
pub(crate) use confirm::ConfirmHandler;
#[cfg(feature = "tcp")]
pub(crate) use connection::{Connection, Io};
#[cfg(feature = "nats")]
pub(crate) use driver::Link;
pub(crate) use driver::{Driven, Driver};
pub(crate) use metrics::Metrics;
pub(crate) use peer_watch::PeerHandler;
pub(crate) use serve::Serving;
pub(crate) use sessions::{Dial, Dialler, NoLink, Sessions};
#[cfg(feature = "nats")]
pub(crate) use shared::Wakers;
pub(crate) use shared::{SessionLimits, SharedSession};
pub(crate) use upkeep::keep_serving;

/// Targets of the planes themselves begin so, which no endpoint's name does.
const INTERNAL: char = '~';
/// Streams of a session for the planes themselves, beside those for requests: watches of as many
/// workers as a process can have, and their events.
pub(crate) const INTERNAL_STREAMS: u32 = 16_384;
/// What a session's streams may have of frames that have not come whole, unless it is set.
pub(crate) const MAX_PART_BYTES: usize = 256 << 20;
/// Tells how things stand with the target that its first frame names.
pub(crate) const PEER_TARGET: &str = "~peer";
/// Tells whether the record that its first frame has is what is served.
pub(crate) const CONFIRM_TARGET: &str = "~confirm";
/// Gives the events of the topic that its first frame names.
#[cfg(feature = "tcp")]
pub(crate) const EVENTS_TARGET: &str = "~events";

/// Whether a target is a plane's own.
pub(crate) fn is_internal(target: &[u8]) -> bool {
    target.first() == Some(&(INTERNAL as u8))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
