//! What a subscriber makes of messages.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use forebay_tokens::WorkerId;

use super::message::Message;
use crate::event_plane::{Event, Stamp};

/// The largest payload of an event.
pub(super) const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// Publishers of a topic whose parts are kept at a time.
const MAX_PUBLISHERS: usize = 64;

/// Puts events together from their parts.
///
/// NATS keeps the order of a publisher, and may lose any message: an event with a part missing is
/// lost as a whole. Kept are the parts of one event a publisher, 64 MiB in all.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    begun: HashMap<WorkerId, Begun>,
    bytes: usize,
}

/// The beginning of an event.
#[derive(Debug)]
struct Begun {
    stamp: Stamp,
    payload_bytes: usize,
    payload: BytesMut,
}

impl Assembly {
    /// Takes the next message; gives the event that it completes, and how many before it were
    /// never sent.
    pub(super) fn push(&mut self, message: Message) -> Option<(Event, u32)> {
        let unsent = message.unsent;
        let event = self.assemble(message)?;
        Some((event, unsent))
    }

    fn assemble(&mut self, message: Message) -> Option<Event> {
        let Message { stamp, part, .. } = message;
        let (payload_bytes, offset) = (message.payload_bytes as usize, message.offset as usize);
        if offset == 0 && part.len() == payload_bytes {
            self.forget(stamp.publisher);
            return Some(Event {
                stamp,
                payload: part,
            });
        }
        if offset == 0 {
            self.begin(stamp, payload_bytes, &part);
            return None;
        }
        let begun = self.begun.get_mut(&stamp.publisher)?;
        let is_next = begun.stamp == stamp
            && begun.payload_bytes == payload_bytes
            && begun.payload.len() == offset;
        if !is_next {
            self.forget(stamp.publisher);
            return None;
        }
        begun.payload.extend_from_slice(&part);
        self.bytes += part.len();
        if begun.payload.len() < payload_bytes {
            self.bound(stamp.publisher);
            return None;
        }
        let payload = self.forget(stamp.publisher)?;
        Some(Event { stamp, payload })
    }

    fn begin(&mut self, stamp: Stamp, payload_bytes: usize, part: &Bytes) {
        self.forget(stamp.publisher);
        if payload_bytes > MAX_PAYLOAD_BYTES {
            return;
        }
        if self.begun.len() == MAX_PUBLISHERS {
            self.clear();
        }
        self.bytes += part.len();
        let begun = Begun {
            stamp,
            payload_bytes,
            payload: BytesMut::from(&part[..]),
        };
        self.begun.insert(stamp.publisher, begun);
        self.bound(stamp.publisher);
    }

    /// Beyond the bound only `publisher`'s parts stay.
    fn bound(&mut self, publisher: WorkerId) {
        if self.bytes > MAX_PAYLOAD_BYTES {
            self.begun.retain(|owner, _| *owner == publisher);
            self.bytes = self.begun.values().map(|begun| begun.payload.len()).sum();
        }
    }

    fn clear(&mut self) {
        self.begun.clear();
        self.bytes = 0;
    }

    fn forget(&mut self, publisher: WorkerId) -> Option<Bytes> {
        let begun = self.begun.remove(&publisher)?;
        self.bytes -= begun.payload.len();
        Some(begun.payload.freeze())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(publisher: u64, sequence: u64) -> Stamp {
        Stamp {
            publisher: WorkerId(publisher),
            epoch: 1,
            sequence,
        }
    }

    /// An event's messages, its payload cut into parts of `size` bytes.
    fn parts(stamp: Stamp, payload: &'static [u8], size: usize) -> Vec<Message> {
        payload
            .chunks(size)
            .enumerate()
            .map(|(number, part)| Message {
                stamp,
                unsent: 0,
                payload_bytes: payload.len() as u32,
                offset: (number * size) as u32,
                part: Bytes::from_static(part),
            })
            .collect()
    }

    #[test]
    fn parts_of_several_publishers_are_kept_apart() {
        let mut assembly = Assembly::default();
        let a = parts(stamp(1, 0), b"the first event", 4);
        let b = parts(stamp(2, 0), b"another event .", 4);
        let mut events = Vec::new();
        for (a, b) in a.into_iter().zip(b) {
            events.extend(assembly.assemble(a));
            events.extend(assembly.assemble(b));
        }
        assert_eq!(events[0].payload, "the first event");
        assert_eq!(events[1].payload, "another event .");
        assert_eq!((assembly.begun.len(), assembly.bytes), (0, 0));
    }

    #[test]
    fn an_event_with_a_part_missing_is_lost_whole() {
        for missing in 0..3 {
            let mut assembly = Assembly::default();
            let mut messages = parts(stamp(1, 0), b"twelve bytes", 4);
            messages.remove(missing);
            messages.extend(parts(stamp(1, 1), b"next", 2));
            let events: Vec<_> = messages
                .into_iter()
                .filter_map(|message| assembly.assemble(message))
                .collect();
            assert_eq!(events.len(), 1, "{missing}");
            assert_eq!(events[0].stamp, stamp(1, 1));
            assert_eq!(events[0].payload, "next");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let part = Bytes::from(vec![0; MAX_PAYLOAD_BYTES / 4]);
        let begin = |publisher, payload_bytes: usize| Message {
            stamp: stamp(publisher, 0),
            unsent: 0,
            payload_bytes: payload_bytes as u32,
            offset: 0,
            part: part.clone(),
        };
        let mut assembly = Assembly::default();
        for publisher in 0..100 {
            assert_eq!(assembly.push(begin(publisher, MAX_PAYLOAD_BYTES)), None);
            assert!(assembly.bytes <= MAX_PAYLOAD_BYTES);
        }
        let mut assembly = Assembly::default();
        assert_eq!(assembly.push(begin(1, MAX_PAYLOAD_BYTES + 1)), None);
        assert_eq!(assembly.bytes, 0, "an event that is too large is not begun");
    }

    #[test]
    fn an_empty_event_is_one() {
        let message = Message {
            stamp: stamp(1, 3),
            unsent: 2,
            payload_bytes: 0,
            offset: 0,
            part: Bytes::new(),
        };
        let (event, unsent) = Assembly::default().push(message).unwrap();
        assert_eq!((event.stamp, event.payload.len()), (stamp(1, 3), 0));
        assert_eq!(unsent, 2);
    }

    /// A message as the decoder lets one through, of few publishers and events.
    fn any_message() -> impl Strategy<Value = Message> {
        let numbers = (0..3_u64, 0..3_u64, 0..12_u32, 0..12_u32);
        let part = proptest::collection::vec(any::<u8>(), 0..6);
        (numbers, part).prop_filter_map("it ends in the payload", |(numbers, part)| {
            let (publisher, sequence, payload_bytes, offset) = numbers;
            (offset as usize + part.len() <= payload_bytes as usize).then(|| Message {
                stamp: stamp(publisher, sequence),
                unsent: 0,
                payload_bytes,
                offset,
                part: part.into(),
            })
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_is_put_together_whole(
            messages in proptest::collection::vec(any_message(), 0..60),
        ) {
            let mut assembly = Assembly::default();
            for message in messages {
                let (stamp, payload_bytes) = (message.stamp, message.payload_bytes);
                if let Some((event, _)) = assembly.push(message) {
                    prop_assert_eq!(event.stamp, stamp);
                    prop_assert_eq!(event.payload.len(), payload_bytes as usize);
                }
                let kept: usize = assembly.begun.values().map(|begun| begun.payload.len()).sum();
                prop_assert_eq!(assembly.bytes, kept);
            }
        }
    }
}
