#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod book;
mod config;
mod error;
mod index;
mod replica;
mod request;
mod router;
mod selection;
mod selector;
mod worker;

pub use book::{Booking, BookingId, Load, LoadBook, OwnerId};
pub use config::{RouterConfig, Weights};
pub use error::{ConfigError, Error};
pub use index::{FlatIndex, Match, Overlap, PrefixIndex};
pub use replica::{
    BookingBatch, BookingEvent, BookingLog, BookingSnapshot, Followed, LogSnapshot, ReplicaChange,
    ReplicaSet, SharedBooking,
};
pub use request::Request;
pub use router::Router;
pub use selection::{Candidate, Cost, CostUnit, Decision, Eligibility, Mode};
pub use selector::Selector;
pub use worker::{WorkerRank, WorkerSpec};
