//! Events and requests over NATS.
//!
//! A process has one connection ([`NatsConnection`]) that both planes share. Core NATS delivers at
//! most once: what is in flight when a connection breaks is lost, and so is what a slow consumer
//! has no room for. So neither plane rests on delivery. Events are numbered, and a gap is the
//! subscriber's to repair; requests go through a [`Session`](forebay_mux::session::Session), which
//! sends again what the other side has not acknowledged.
//!
//! | subject | what goes there |
//! |---|---|
//! | `forebay.ev.<topic>` | events of a topic |
//! | `forebay.rq.<namespace>.<component>.<endpoint>.<worker>` | clients that look for the process of an instance; a queue group |
//! | `forebay.rp.<process>.<c or s>.<session>` | packets to the client's or the server's end of a session |
//! | `forebay.nobody` | nothing: the server's answer that nobody is there is a sign of its life |

mod config;
mod connection;
mod events;
mod metrics;
mod requests;

pub use config::NatsConfig;
pub use connection::NatsConnection;
pub use events::NatsEvents;
pub use requests::{NatsPlane, NatsPlaneConfig};
