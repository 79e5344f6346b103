//! HTTP as Forebay's processes serve it: connections of which every wait has an end, and errors in
//! OpenAI's envelope.

mod acceptor;
mod closing;
mod connections;
mod exchange;
mod fallbacks;
mod limits;
mod metrics;
mod refusal;
mod wire;

use forebay_tokens::RequestId;

pub use acceptor::Acceptor;
pub use connections::Connections;
pub use fallbacks::{no_method, no_route};
pub use limits::HttpLimits;
pub use refusal::Refusal;

use crate::random::random;

/// The id of a request that brings none.
///
/// # Panics
///
/// If the system has no source of randomness.
pub fn random_request_id() -> RequestId {
    RequestId::from_random(u128::from(random()) << 64 | u128::from(random()))
}
