use forebay_tokens::Tier;
use rustc_hash::FxHashMap;

use crate::WorkerRank;

/// One tier of one worker's rank, as small as an owner's entry needs it. The number is given anew
/// when the tier is cleared, so that clearing does not have to visit the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    fn new(number: usize, tier: Tier) -> Self {
        let number = u32::try_from(number).expect("places are few: four for each rank");
        Self(number << 2 | tier as u32)
    }

    fn number(self) -> usize {
        (self.0 >> 2) as usize
    }

    pub(super) fn tier(self) -> Tier {
        [Tier::G1, Tier::G2, Tier::G3, Tier::G4][(self.0 & 3) as usize]
    }
}

/// The ranks an index knows, and the places that are theirs now.
#[derive(Debug, Default)]
pub(super) struct Places {
    slots: FxHashMap<WorkerRank, u32>,
    ranks: Vec<Rank>,
    free_slots: Vec<u32>,
    /// By number.
    places: Vec<State>,
    free_numbers: Vec<usize>,
    live_blocks: usize,
}

#[derive(Debug)]
struct Rank {
    at: WorkerRank,
    places: [Option<Place>; 4],
}

/// A place's rank, `None` once it is retired, and how many distinct blocks it has.
#[derive(Clone, Copy, Debug)]
struct State {
    slot: Option<u32>,
    blocks: usize,
}

impl Places {
    /// The place, made if it is new.
    pub(super) fn open(&mut self, at: WorkerRank, tier: Tier) -> Place {
        let slot = *self.slots.entry(at).or_insert_with(|| {
            let rank = Rank {
                at,
                places: [None; 4],
            };
            match self.free_slots.pop() {
                Some(slot) => {
                    self.ranks[slot as usize] = rank;
                    slot
                }
                None => {
                    self.ranks.push(rank);
                    u32::try_from(self.ranks.len() - 1).expect("ranks are few")
                }
            }
        });
        let place = &mut self.ranks[slot as usize].places[tier as usize];
        *place.get_or_insert_with(|| {
            let state = State {
                slot: Some(slot),
                blocks: 0,
            };
            let number = self.free_numbers.pop().unwrap_or(self.places.len());
            match self.places.get_mut(number) {
                Some(free) => *free = state,
                None => self.places.push(state),
            }
            Place::new(number, tier)
        })
    }

    /// The place, if it has or had blocks.
    pub(super) fn get(&self, at: WorkerRank, tier: Tier) -> Option<Place> {
        let slot = *self.slots.get(&at)?;
        self.ranks[slot as usize].places[tier as usize]
    }

    /// The place's blocks are gone, all at once. Returns it if it can be met in entries until these
    /// are swept; then it is to be given back by [`Self::reuse`].
    pub(super) fn retire(&mut self, at: WorkerRank, tier: Tier) -> Option<Place> {
        let slot = *self.slots.get(&at)?;
        let place = self.ranks[slot as usize].places[tier as usize].take()?;
        let retired = State {
            slot: None,
            blocks: 0,
        };
        let State { blocks, .. } = std::mem::replace(&mut self.places[place.number()], retired);
        if blocks == 0 {
            self.reuse(place);
            return None;
        }
        self.live_blocks -= blocks;
        Some(place)
    }

    /// Forgets a rank whose places are retired.
    pub(super) fn close(&mut self, at: WorkerRank) {
        if let Some(slot) = self.slots.remove(&at) {
            debug_assert_eq!(self.ranks[slot as usize].places, [None; 4]);
            self.free_slots.push(slot);
        }
    }

    /// No entry has the retired place any more.
    pub(super) fn reuse(&mut self, place: Place) {
        self.free_numbers.push(place.number());
    }

    pub(super) fn is_live(&self, place: Place) -> bool {
        self.slot(place).is_some()
    }

    /// The number of the place's rank, below [`Self::slots`]; `None` if the place is retired.
    pub(super) fn slot(&self, place: Place) -> Option<u32> {
        self.places[place.number()].slot
    }

    pub(super) fn rank(&self, slot: u32) -> WorkerRank {
        self.ranks[slot as usize].at
    }

    pub(super) fn slots(&self) -> usize {
        self.ranks.len()
    }

    pub(super) fn added(&mut self, place: Place) {
        self.places[place.number()].blocks += 1;
        self.live_blocks += 1;
    }

    pub(super) fn lost(&mut self, place: Place) {
        self.places[place.number()].blocks -= 1;
        self.live_blocks -= 1;
    }

    pub(super) fn blocks_at(&self, at: WorkerRank) -> usize {
        let Some(slot) = self.slots.get(&at) else {
            return 0;
        };
        let places = self.ranks[*slot as usize].places;
        let blocks = |place: Place| self.places[place.number()].blocks;
        places.into_iter().flatten().map(blocks).sum()
    }

    pub(super) fn live_blocks(&self) -> usize {
        self.live_blocks
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(WorkerRank, u32)>()
            + self.ranks.capacity() * size_of::<Rank>()
            + self.places.capacity() * size_of::<State>()
            + self.free_slots.capacity() * size_of::<u32>()
            + self.free_numbers.capacity() * size_of::<usize>()
    }
}
