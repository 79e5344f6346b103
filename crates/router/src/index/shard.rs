use std::num::NonZeroU32;

use forebay_tokens::RoutingHash;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use rustc_hash::FxBuildHasher;

use super::places::{Place, Places};

/// A part of the index: who has a block, by hash.
#[derive(Debug, Default)]
pub(super) struct Shard {
    map: Map,
    /// What the map takes.
    map_bytes: usize,
    /// The owners of blocks that have several.
    lists: Vec<List>,
    /// What the lists' owners take.
    owners_bytes: usize,
}

type Map = HashMap<RoutingHash, Owners, FxBuildHasher>;

/// Most blocks have one owner, which stands in the entry.
#[derive(Clone, Copy, Debug)]
enum Owners {
    One(Owner),
    /// The number of a list of two or more.
    Many(u32),
}

/// How often a place has a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) place: Place,
    count: NonZeroU32,
}

const _: () = assert!(size_of::<Owners>() == 8, "an entry has 16 bytes");

/// The owners of one block, nearest tier first.
#[derive(Debug)]
struct List {
    hash: RoutingHash,
    owners: Vec<Owner>,
}

/// What became of a block that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    New,
    Again,
    /// It needs more memory than there is.
    Full,
}

/// An entry, and its byte of the map's own.
const ENTRY_BYTES: usize = size_of::<(RoutingHash, Owners)>() + 1;
/// The smallest map.
const LEAST_MAP_BYTES: usize = 16 * ENTRY_BYTES;

impl Shard {
    /// One more of a block at a place, if that takes at most `room` bytes more.
    pub(super) fn store(&mut self, hash: RoutingHash, place: Place, room: usize) -> Stored {
        let map_growth = self.map_growth();
        let owner = Owner {
            place,
            count: NonZeroU32::MIN,
        };
        let mut entry = match self.map.entry(hash) {
            Entry::Vacant(_) if map_growth > room => return Stored::Full,
            Entry::Vacant(entry) => {
                entry.insert(Owners::One(owner));
                if map_growth > 0 {
                    self.map_bytes = self.map.allocation_size();
                }
                return Stored::New;
            }
            Entry::Occupied(entry) => entry,
        };
        match entry.get_mut() {
            Owners::One(only) if only.place == place => {
                only.count = only.count.saturating_add(1);
                Stored::Again
            }
            Owners::One(only) => {
                let owners_bytes = 2 * size_of::<Owner>();
                if growth(&self.lists) + owners_bytes > room {
                    return Stored::Full;
                }
                let mut owners = Vec::with_capacity(2);
                owners.extend([*only, owner]);
                owners.sort_by_key(|owner| owner.place.tier());
                let number = u32::try_from(self.lists.len()).expect("blocks are fewer");
                grow(&mut self.lists);
                self.lists.push(List { hash, owners });
                self.owners_bytes += owners_bytes;
                entry.insert(Owners::Many(number));
                Stored::New
            }
            Owners::Many(number) => {
                let owners = &mut self.lists[*number as usize].owners;
                if let Some(owner) = owners.iter_mut().find(|owner| owner.place == place) {
                    owner.count = owner.count.saturating_add(1);
                    return Stored::Again;
                }
                let more_bytes = growth(owners);
                if more_bytes > room {
                    return Stored::Full;
                }
                grow(owners);
                let at = owners.partition_point(|other| other.place.tier() <= place.tier());
                owners.insert(at, owner);
                self.owners_bytes += more_bytes;
                Stored::New
            }
        }
    }

    /// One less of a block at a place; whether it was the last.
    pub(super) fn remove(&mut self, hash: RoutingHash, place: Place) -> bool {
        let Entry::Occupied(mut entry) = self.map.entry(hash) else {
            return false;
        };
        match entry.get_mut() {
            Owners::One(only) => {
                if only.place != place || !only.is_last() {
                    return false;
                }
                entry.remove();
                self.shrink_map();
            }
            Owners::Many(number) => {
                let number = *number;
                let owners = &mut self.lists[number as usize].owners;
                let Some(at) = owners.iter().position(|owner| owner.place == place) else {
                    return false;
                };
                if !owners[at].is_last() {
                    return false;
                }
                let before = owners.capacity();
                owners.remove(at);
                shrink(owners);
                self.owners_bytes -= (before - owners.capacity()) * size_of::<Owner>();
                if let [only] = owners[..] {
                    entry.insert(Owners::One(only));
                    self.drop_list(number);
                }
            }
        }
        true
    }

    /// Who has the block, nearest tier first; places that are retired may be among them.
    pub(super) fn owners(&self, hash: RoutingHash) -> &[Owner] {
        match self.map.get(&hash) {
            None => &[],
            Some(Owners::One(owner)) => std::slice::from_ref(owner),
            Some(Owners::Many(number)) => &self.lists[*number as usize].owners,
        }
    }

    /// Drops the entries of retired places.
    pub(super) fn sweep(&mut self, places: &Places) {
        // From the end, so that a list which fills a gap has been visited.
        for number in (0..self.lists.len()).rev() {
            let List { hash, owners } = &mut self.lists[number];
            let hash = *hash;
            let before = owners.capacity();
            owners.retain(|owner| places.is_live(owner.place));
            shrink(owners);
            self.owners_bytes -= (before - owners.capacity()) * size_of::<Owner>();
            match owners[..] {
                [] => drop(self.map.remove(&hash)),
                [only] => self.set(hash, Owners::One(only)),
                _ => continue,
            }
            self.drop_list(number as u32);
        }
        self.map.retain(|_, owners| match owners {
            Owners::One(owner) => places.is_live(owner.place),
            Owners::Many(_) => true,
        });
        self.shrink_map();
    }

    /// How many blocks it has.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The memory it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        self.map_bytes + self.lists.capacity() * size_of::<List>() + self.owners_bytes
    }

    fn drop_list(&mut self, number: u32) {
        let list = self.lists.swap_remove(number as usize);
        self.owners_bytes -= list.owners.capacity() * size_of::<Owner>();
        if let Some(moved) = self.lists.get(number as usize) {
            self.set(moved.hash, Owners::Many(number));
        }
        shrink(&mut self.lists);
    }

    /// Says anew who has a block that has owners. (Inserting could take memory for one more.)
    fn set(&mut self, hash: RoutingHash, owners: Owners) {
        *self
            .map
            .get_mut(&hash)
            .expect("a list's block has an entry") = owners;
    }

    /// How many bytes the next new entry takes: none, or what the map takes now, as it doubles.
    fn map_growth(&self) -> usize {
        let has_room = self.map.len() < self.map.capacity();
        // Deleted entries take room until the map is made anew; at under half of what it can
        // hold, that is done in place.
        let has_room = has_room || self.map.len() < self.map_holds() / 2;
        match self.map_bytes {
            _ if has_room => 0,
            0 => LEAST_MAP_BYTES,
            bytes => bytes,
        }
    }

    /// How many entries the map's memory can hold.
    fn map_holds(&self) -> usize {
        self.map_bytes / ENTRY_BYTES / 8 * 7
    }

    fn shrink_map(&mut self) {
        let len = self.map.len();
        if len == 0 {
            self.map = Map::default();
            self.map_bytes = 0;
        } else if len < self.map_holds() / 4 {
            self.map.shrink_to(len * 2);
            self.map_bytes = self.map.allocation_size();
        }
    }
}

impl Owner {
    /// Counts one off; whether none is left.
    fn is_last(&mut self) -> bool {
        match NonZeroU32::new(self.count.get() - 1) {
            Some(count) => {
                self.count = count;
                false
            }
            None => true,
        }
    }
}

/// How many bytes `list` takes more for one more item.
fn growth<T>(list: &Vec<T>) -> usize {
    match list.len() == list.capacity() {
        true => more(list) * size_of::<T>(),
        false => 0,
    }
}

/// Takes these bytes.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(more(list));
    }
}

/// Half as much again: lists are many, and what they do not fill is lost.
fn more<T>(list: &Vec<T>) -> usize {
    (list.capacity() / 2).max(2)
}

fn shrink<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_tokens::{Tier, WorkerId};

    use super::*;

    /// What the shard takes, asked of what takes it.
    fn counted_bytes(shard: &Shard) -> usize {
        let owners = shard.lists.iter().map(|list| list.owners.capacity());
        shard.map.allocation_size()
            + shard.lists.capacity() * size_of::<List>()
            + owners.sum::<usize>() * size_of::<Owner>()
    }

    #[test]
    fn bytes_are_counted_and_kept_within_their_room() {
        let mut places = Places::default();
        let open = |places: &mut Places, n: u64| places.open(WorkerId(n).into(), Tier::G1);
        let owners: Vec<Place> = (0..6).map(|n| open(&mut places, n)).collect();
        let mut shard = Shard::default();
        let mut random = 1_u64;
        let (mut full, mut most) = (0, 0);
        for round in 0..40_u64 {
            // More is stored than removed, then the other way round, again and again.
            let max_bytes = 4_000 + 1_500 * (round % 7) as usize;
            for _ in 0..2_000 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                let hash = RoutingHash(random >> 33 & 511);
                let place = owners[(random >> 45) as usize % owners.len()];
                if (random >> 50) % 10 < (round % 4) * 3 {
                    let room = max_bytes.saturating_sub(shard.bytes());
                    let before = shard.bytes();
                    let stored = shard.store(hash, place, room);
                    full += usize::from(stored == Stored::Full);
                    assert!(shard.bytes() <= before + room);
                } else {
                    shard.remove(hash, place);
                }
                assert_eq!(shard.bytes(), counted_bytes(&shard));
                most = most.max(shard.bytes());
            }
            if round % 10 == 9 {
                places.retire(WorkerId(round / 10).into(), Tier::G1);
                shard.sweep(&places);
                assert_eq!(shard.bytes(), counted_bytes(&shard));
            }
        }
        assert!(full > 100 && most > 10_000, "{full} {most}");
    }
}
