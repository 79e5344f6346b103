//! What the frontends of a deployment tell each other of what they have sent to which worker.

mod metrics;
mod owner;
mod peer;
mod shared_books;
mod snapshots;
mod task;
mod wire;

pub(crate) use owner::Owner;
pub(crate) use shared_books::SharedBooks;
pub(crate) use task::Replicas;
