use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::stream::Stream;

/// So many slots are kept when all streams have ended.
const KEPT_SLOTS: usize = 1024;
/// No slot.
const NONE: u32 = u32::MAX;

/// The lists of streams that wait for their turn.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Lane {
    /// Those with a control frame to send.
    Control = 0,
    /// Those with data to send, and the credit for it.
    Data = 1,
}

const LANES: usize = 2;

/// Where a stream is in a lane: its neighbours there.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    linked: bool,
}

const UNLINKED: Link = Link {
    before: NONE,
    after: NONE,
    linked: false,
};

#[derive(Debug)]
struct Slot {
    /// `None` if the slot is free.
    stream: Option<Stream>,
    links: [Link; LANES],
}

/// The streams that are open, by id and in lanes. All in constant time.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, FxBuildHasher>,
    /// First and last slot of each lane.
    lanes: [(u32, u32); LANES],
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            lanes: [(NONE, NONE); LANES],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Adds a stream; returns its slot.
    pub(super) fn insert(&mut self, stream: Stream) -> u32 {
        let id = stream.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                stream: None,
                links: [UNLINKED; LANES],
            });
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize].stream = Some(stream);
        self.by_id.insert(id, slot);
        slot
    }

    /// Where a stream is.
    pub(super) fn find(&self, id: u32) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The stream of a slot that is taken.
    pub(super) fn get(&self, slot: u32) -> &Stream {
        let stream = &self.slots[slot as usize].stream;
        stream.as_ref().expect("the slot is taken")
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Stream {
        let stream = &mut self.slots[slot as usize].stream;
        stream.as_mut().expect("the slot is taken")
    }

    /// Takes a stream out, and off its lanes.
    pub(super) fn remove(&mut self, slot: u32) {
        self.unlink(Lane::Control, slot);
        self.unlink(Lane::Data, slot);
        if let Some(stream) = self.slots[slot as usize].stream.take() {
            self.by_id.remove(&stream.id);
            self.free.push(slot);
        }
        if self.by_id.is_empty() && self.slots.len() > KEPT_SLOTS {
            self.clear();
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// All of them, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.stream.as_mut())
    }

    /// Who is first in a lane.
    pub(super) fn front(&self, lane: Lane) -> Option<u32> {
        let (first, _) = self.lanes[lane as usize];
        (first != NONE).then_some(first)
    }

    /// Puts a stream at a lane's end, if it is not in the lane.
    pub(super) fn link(&mut self, lane: Lane, slot: u32) {
        let (_, last) = self.lanes[lane as usize];
        let link = self.link_mut(lane, slot);
        if link.linked {
            return;
        }
        *link = Link {
            before: last,
            after: NONE,
            linked: true,
        };
        self.join(lane, last, slot);
        self.join(lane, slot, NONE);
    }

    /// Takes a stream out of a lane, if it is in it.
    pub(super) fn unlink(&mut self, lane: Lane, slot: u32) {
        let link = std::mem::replace(self.link_mut(lane, slot), UNLINKED);
        if link.linked {
            self.join(lane, link.before, link.after);
        }
    }

    /// Makes two slots neighbours, or one of them an end of the lane.
    fn join(&mut self, lane: Lane, before: u32, after: u32) {
        match before {
            NONE => self.lanes[lane as usize].0 = after,
            before => self.link_mut(lane, before).after = after,
        }
        match after {
            NONE => self.lanes[lane as usize].1 = before,
            after => self.link_mut(lane, after).before = before,
        }
    }

    fn link_mut(&mut self, lane: Lane, slot: u32) -> &mut Link {
        &mut self.slots[slot as usize].links[lane as usize]
    }
}
