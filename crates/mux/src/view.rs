//! Who may be sent requests, of those that discovery names; and how long a claim of one's own
//! lasts there.
//!
//! [`View`] joins what discovery says with what the connections to the peers say. [`Lease`] is the
//! side of who is to be found.

mod lease;
mod members;

pub use lease::Lease;
pub use members::{Config, DownCause, Output, Peer, Record, View};

#[cfg(test)]
mod tests;
