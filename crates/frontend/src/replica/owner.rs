use std::sync::atomic::{AtomicU64, Ordering};

use forebay_router::{BookingBatch, BookingId, BookingLog, LogSnapshot, OwnerId, SharedBooking};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::request_id::random_u64;

/// Whose bookings a pool's are, and what is told of them to others.
#[derive(Debug)]
pub(crate) struct Owner {
    id: OwnerId,
    next: AtomicU64,
    /// `None` if nobody is told.
    told: Option<Told>,
}

#[derive(Debug, Default)]
struct Told {
    log: Mutex<BookingLog>,
    /// There is something to tell.
    news: Notify,
}

/// Ids stay exact where they become JSON numbers.
const ID_BITS: u32 = 53;

impl Owner {
    /// One whose bookings are its own affair.
    pub(crate) fn alone() -> Self {
        Self {
            id: OwnerId(random_u64() >> (64 - ID_BITS)),
            next: AtomicU64::new(0),
            told: None,
        }
    }

    /// One that tells others.
    pub(crate) fn telling() -> Self {
        Self {
            told: Some(Told::default()),
            ..Self::alone()
        }
    }

    pub(crate) fn id(&self) -> OwnerId {
        self.id
    }

    /// The name of the next booking.
    pub(crate) fn next_booking(&self) -> BookingId {
        BookingId::new(self.id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn booked(&self, id: BookingId, booking: impl FnOnce() -> SharedBooking) {
        self.note(|log| log.booked(id.id, booking()));
    }

    pub(crate) fn first_token(&self, id: BookingId) {
        self.note(|log| log.first_token(id.id));
    }

    pub(crate) fn grew(&self, id: BookingId, blocks: u64) {
        self.note(|log| log.grew(id.id, blocks));
    }

    pub(crate) fn ended(&self, id: BookingId) {
        self.note(|log| log.ended(id.id));
    }

    /// Waits until there may be something to tell; for ever, if nobody is told. Cancel-safe.
    pub(crate) async fn news(&self) {
        match &self.told {
            Some(told) => told.news.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The next batch, as [`BookingLog::next_batch`] makes it, and whether there is more to tell.
    pub(crate) fn next_batch(&self, most_hashes: usize) -> Option<(BookingBatch, bool)> {
        let mut log = self.told.as_ref()?.log.lock();
        let batch = log.next_batch(most_hashes);
        Some((batch, log.has_news()))
    }

    /// All bookings; `None` if nobody is told.
    pub(crate) fn snapshot(&self) -> Option<LogSnapshot> {
        Some(self.told.as_ref()?.log.lock().snapshot())
    }

    /// Whether nothing is booked.
    pub(crate) fn is_idle(&self) -> bool {
        let told = self.told.as_ref();
        told.is_none_or(|told| told.log.lock().is_empty())
    }

    fn note(&self, note: impl FnOnce(&mut BookingLog)) {
        if let Some(told) = &self.told {
            let mut log = told.log.lock();
            let had_news = log.has_news();
            note(&mut log);
            if !had_news && log.has_news() {
                drop(log);
                told.news.notify_one();
            }
        }
    }
}
