//! What a subscriber has not taken yet.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::{Event, Lagged};

/// How many events an empty queue has memory for.
const USUAL: usize = 16;

/// An event, or how many are missing here.
type Item = Result<Event, Lagged>;

/// Events in order; when there are too many, the oldest are lost and counted. It takes memory for
/// what is in it.
#[derive(Debug)]
pub(crate) struct Queue {
    max_items: usize,
    max_bytes: usize,
    items: VecDeque<Item>,
    bytes: usize,
    missed: u64,
    consumer: Option<Waker>,
}

impl Queue {
    /// At most so many items, and payloads of so many bytes; one event always fits.
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            max_items,
            max_bytes,
            items: VecDeque::new(),
            bytes: 0,
            missed: 0,
            consumer: None,
        }
    }

    /// Adds an event, or the place of some that are lost. Gives whom to wake, which is done outside
    /// of locks.
    pub(crate) fn push(&mut self, item: Item) -> Option<Waker> {
        self.bytes += payload_bytes(&item);
        self.items.push_back(item);
        while self.items.len() > 1 && self.is_full() {
            self.missed += match self.pop() {
                Some(Err(lagged)) => lagged.missed,
                _ => 1,
            };
        }
        self.consumer.take()
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Item> {
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            return Poll::Ready(Err(Lagged { missed }));
        }
        match self.pop() {
            Some(item) => Poll::Ready(item),
            None => {
                // The memory of a burst goes back.
                self.items.shrink_to(USUAL);
                self.consumer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_full(&self) -> bool {
        self.items.len() > self.max_items || self.bytes > self.max_bytes
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= payload_bytes(&item);
        Some(item)
    }
}

fn payload_bytes(item: &Item) -> usize {
    item.as_ref().map_or(0, |event| event.payload.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use forebay_tokens::WorkerId;

    use super::*;
    use crate::event_plane::Stamp;

    fn event(sequence: u64, payload: &'static [u8]) -> Event {
        Event {
            stamp: Stamp {
                publisher: WorkerId(1),
                epoch: 0,
                sequence,
            },
            payload: Bytes::from_static(payload),
        }
    }

    /// What can be read: the numbers of events, or how many are missing.
    fn read(queue: &mut Queue) -> Vec<Result<u64, u64>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut items = Vec::new();
        while let Poll::Ready(item) = queue.poll(&mut context) {
            items.push(match item {
                Ok(event) => Ok(event.stamp.sequence),
                Err(lagged) => Err(lagged.missed),
            });
        }
        items
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let mut queue = Queue::new(3, 8);
        for sequence in 0..5 {
            queue.push(Ok(event(sequence, b"x")));
        }
        assert_eq!(read(&mut queue), [Err(2), Ok(2), Ok(3), Ok(4)]);
        queue.push(Ok(event(5, b"xxxxx")));
        queue.push(Ok(event(6, b"xxxxx")));
        assert_eq!(read(&mut queue), [Err(1), Ok(6)]);
        queue.push(Ok(event(7, b"larger than all")));
        assert_eq!(read(&mut queue), [Ok(7)]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_was_lost_before_stands_in_its_place() {
        let mut queue = Queue::new(3, 8);
        queue.push(Ok(event(0, b"x")));
        queue.push(Err(Lagged { missed: 4 }));
        queue.push(Ok(event(5, b"x")));
        assert_eq!(read(&mut queue), [Ok(0), Err(4), Ok(5)]);
        queue.push(Err(Lagged { missed: 4 }));
        for sequence in 10..14 {
            queue.push(Ok(event(sequence, b"x")));
        }
        assert_eq!(read(&mut queue), [Err(5), Ok(11), Ok(12), Ok(13)]);
    }
}
