use crate::{BookingId, Candidate, Decision, Error, Request};

/// Who chooses workers for requests, and keeps count of what it chose.
///
/// The calls are messages: what goes in and comes out is plain data, every change names its
/// booking and may be repeated. A selector in another process needs nothing else.
pub trait Selector {
    /// Chooses a worker, and books nothing.
    ///
    /// `random` is what ties and random modes are drawn from: the same state, request and number
    /// give the same decision.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no worker for the request.
    fn select(&self, request: &Request<'_>, random: u64) -> Result<Decision, Error>;

    /// Chooses a worker as [`Self::select`] does and books the request there, in one: what is
    /// chosen next sees it. A booking of that id that is still there is ended first, so that a
    /// request may be reserved again elsewhere. It stays booked until it is released, however long
    /// that takes.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no worker for the request; then nothing is booked.
    fn reserve(
        &mut self,
        request: &Request<'_>,
        booking: BookingId,
        random: u64,
    ) -> Result<Decision, Error>;

    /// The request's first token came: its prefill is done.
    fn first_token(&mut self, booking: BookingId);

    /// The request's output took `blocks` KV blocks more.
    fn grew(&mut self, booking: BookingId, blocks: u64);

    /// The request ended, one way or another. Unknown bookings, and those that ended before, are
    /// fine.
    fn release(&mut self, booking: BookingId);

    /// What each worker would mean for the request, whether it may go there or not.
    fn explain(&self, request: &Request<'_>) -> Vec<Candidate>;
}
