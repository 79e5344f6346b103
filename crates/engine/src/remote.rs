//! An engine in another process, or behind the planes of this one (feature `remote`).
//!
//! The side that has an engine serves it with an [`EngineHandler`] and publishes its KV events with
//! a [`KvPublisher`], its load and what changes of its card with a [`ReportPublisher`];
//! `forebay-worker` does that. The other side makes a [`RemoteEngine`] of an instance it has found.
//! What crosses is defined in `proto/forebay/worker/v1/worker.proto`.

mod artefact;
mod artefact_parts;
#[cfg(feature = "conformance")]
mod behind_planes;
mod card;
mod card_change;
mod card_digest;
mod engine;
mod frames;
mod generate_frame;
mod generation;
mod handler;
mod known_card;
mod kv_answer;
mod kv_figures;
mod kv_following;
mod kv_frames;
mod kv_publisher;
mod kv_stream;
mod kv_truth;
mod load;
mod names;
mod progress;
mod report_publisher;
mod stops;

pub use artefact::{ArtefactDigest, Artefacts};
#[cfg(feature = "conformance")]
pub use behind_planes::behind_planes;
pub use card::{WorkerCard, WorkerRole};
pub use card_change::CardChangeError;
pub use card_digest::CardDigest;
pub use engine::RemoteEngine;
pub use handler::EngineHandler;
pub use kv_answer::KvRepairs;
pub use kv_figures::KvFigures;
pub use kv_publisher::KvPublisher;
pub use names::{engine_endpoint, kv_topic, report_topic};
pub use progress::Progress;
pub use report_publisher::ReportPublisher;

pub use forebay_mux::events::{KvPosition, KvRepair, KvState, KvUpdate};
