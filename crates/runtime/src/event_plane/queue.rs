//! What a subscriber has not taken yet.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::{Event, Lagged};

/// How many events an empty queue has memory for.
const USUAL: usize = 16;

/// Events in order; when there are too many, the oldest are lost and counted. It takes memory for
/// what is in it.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    events: VecDeque<Event>,
    missed: u64,
    consumer: Option<Waker>,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            events: VecDeque::new(),
            missed: 0,
            consumer: None,
        }
    }

    /// Adds an event. Gives whom to wake, which is done outside of locks.
    pub(super) fn push(&mut self, event: Event) -> Option<Waker> {
        if self.events.len() == self.capacity {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
        self.consumer.take()
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, Lagged>> {
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            return Poll::Ready(Err(Lagged { missed }));
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(Ok(event)),
            None => {
                // The memory of a burst goes back.
                self.events.shrink_to(USUAL);
                self.consumer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
