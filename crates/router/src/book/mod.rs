//! What was sent where and has not ended.

mod booking;
mod load;
mod load_book;

pub use booking::{Booking, BookingId, OwnerId};
pub use load::Load;
pub use load_book::LoadBook;

pub(crate) use load_book::Slot;
