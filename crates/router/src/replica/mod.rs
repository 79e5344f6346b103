//! What other routers have booked: several of them share one set of workers.
//!
//! Each router is the owner of its bookings, and the only one that changes them. It keeps a
//! [`BookingLog`] of them, whose numbered batches go to all others by whatever means, lossy ones
//! included; another router keeps all that it hears of in a [`ReplicaSet`], which tells what to
//! change in its own book, and when a snapshot is needed because something was lost.

mod booking;
mod log;
mod log_snapshot;
mod set;
mod waiting;

pub use booking::{BookingBatch, BookingEvent, BookingSnapshot, SharedBooking};
pub use log::BookingLog;
pub use log_snapshot::LogSnapshot;
pub use set::{Followed, ReplicaChange, ReplicaSet};
