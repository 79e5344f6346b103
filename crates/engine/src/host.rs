//! What an engine in this process is made of beside its computation: a stream for each choice, and
//! the broadcast of its KV cache's changes.
//!
//! An engine opens a stream with [`LiveStreams::open`] before it looks at a request, writes outputs
//! as they come, and never waits for a consumer. It is woken when somebody drops a stream or aborts
//! a request, and then ends the choices whose writers are unwanted: its [`Writers`] do that.

mod kv_broadcast;
mod live_streams;
mod output_stream;
mod writers;

pub use kv_broadcast::{KvBroadcast, KvSubscription};
pub use live_streams::LiveStreams;
pub use output_stream::{OutputStream, OutputWriter, Unwanted};
pub use writers::Writers;
