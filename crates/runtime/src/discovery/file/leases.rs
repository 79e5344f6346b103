use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use forebay_protocols::discovery::LeaseRecord;
use prost::Message as _;

use super::directory::{Directory, FileError, read};

/// The shortest and the longest time to live that is believed.
const TTL: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];
/// How long a lease has to be over before others remove what its process has left.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// The leases of other processes, as this one has seen them change.
///
/// They end by this process's own clock, counted from when it last saw them change, so that no two
/// clocks are compared. `now` is time in which it has looked: a process that was stopped for a
/// while does not believe that all others died meanwhile.
pub(super) struct Leases {
    directory: Directory,
    /// The time to live of a lease that says nothing.
    ttl: Duration,
    seen: HashMap<u64, Seen>,
}

struct Seen {
    beat: Option<u64>,
    ttl: Duration,
    changed: Duration,
    looked: Duration,
    /// When someone last wanted to know.
    asked: Duration,
}

impl Leases {
    pub(super) fn new(directory: Directory, ttl: Duration) -> Self {
        Self {
            directory,
            ttl,
            seen: HashMap::new(),
        }
    }

    /// For how long a lease has been over; none while it is alive.
    pub(super) fn over_for(&mut self, lease: u64, now: Duration) -> Option<Duration> {
        let is_new = !self.seen.contains_key(&lease);
        let seen = self.seen.entry(lease).or_insert(Seen {
            beat: None,
            ttl: self.ttl,
            changed: now,
            looked: now,
            asked: now,
        });
        seen.asked = now;
        if is_new || now - seen.looked >= seen.ttl / 20 {
            seen.look(&self.directory, lease, now);
        }
        now.checked_sub(seen.changed + seen.ttl)
    }

    /// Whether a lease has been over for so long that its process will not come back.
    pub(super) fn is_left_behind(&mut self, lease: u64, now: Duration) -> bool {
        let over = self.over_for(lease, now);
        over.is_some_and(|over| over >= LEFT_BEHIND)
    }

    /// Removes the leases of dead processes, and what they did not finish writing in `folders`.
    pub(super) fn sweep<'a>(
        &mut self,
        folders: impl Iterator<Item = &'a Path>,
        now: Duration,
    ) -> Result<(), FileError> {
        let leases = self.directory.leases();
        for name in self.directory.names(&leases)? {
            let path = leases.join(&name);
            self.sweep_file(&path, name.trim_start_matches('.'), now)?;
        }
        for folder in folders {
            for name in self.directory.names(folder)? {
                if let Some(lease) = name.strip_prefix('.') {
                    self.sweep_file(&folder.join(&name), lease, now)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a file if the process of `lease` is dead, and leaves alone what is no lease's.
    fn sweep_file(&mut self, path: &Path, lease: &str, now: Duration) -> Result<(), FileError> {
        let id = u64::from_str_radix(lease, 16).ok();
        let id = id.filter(|id| format!("{id:016x}") == lease);
        match id.is_some_and(|id| self.is_left_behind(id, now)) {
            true => self.directory.remove(path),
            false => Ok(()),
        }
    }

    /// Forgets leases that nobody wants to know of.
    pub(super) fn tidy(&mut self, now: Duration) {
        self.seen.retain(|_, seen| now - seen.asked < TTL[1]);
    }
}

impl Seen {
    fn look(&mut self, directory: &Directory, lease: u64, now: Duration) {
        self.looked = now;
        // What cannot be read has not changed.
        let Ok(bytes) = read(&directory.lease(lease)) else {
            return;
        };
        let Ok(record) = LeaseRecord::decode(&*bytes) else {
            return;
        };
        if record.lease == lease && self.beat != Some(record.beat) {
            self.beat = Some(record.beat);
            self.changed = now;
            self.ttl = Duration::from_millis(record.ttl_millis).clamp(TTL[0], TTL[1]);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A lease whose file says anything ends, and within the times that are believed.
        #[test]
        fn any_bytes_of_a_lease_end_in_their_time(
            noise in vec(any::<u8>(), 0..40),
            beat: u64,
            ttl_millis: u64,
            is_noise: bool,
        ) {
            const LEASE: u64 = 5;
            let folder = tempfile::tempdir().unwrap();
            let directory = Directory::open(folder.path().to_owned()).unwrap();
            let record = LeaseRecord { lease: LEASE, beat, ttl_millis };
            let bytes = if is_noise { noise } else { record.encode_to_vec() };
            std::fs::write(directory.lease(LEASE), bytes).unwrap();
            let mut leases = Leases::new(directory, Duration::from_secs(3));
            prop_assert_eq!(leases.over_for(LEASE, Duration::ZERO), None);
            let late = TTL[1];
            let over = leases.over_for(LEASE, late);
            prop_assert!(over.is_some_and(|over| over <= late - TTL[0]), "{over:?}");
        }
    }
}
