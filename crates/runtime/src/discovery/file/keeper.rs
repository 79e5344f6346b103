use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Weak;
use std::time::{Duration, Instant};

use forebay_protocols::discovery::{InstanceRecord, LeaseRecord};
use forebay_tokens::WorkerId;
use prost::Message as _;
use tracing::warn;

use super::super::record;
use super::super::{Instance, metrics::Metrics};
use super::directory::{Directory, FileError, read};
use crate::names::EndpointId;

/// How long a goodbye can be read before its record is removed: a few looks of everyone.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a process that ends stays for its goodbyes to be read: two looks of everyone. Who does
/// not look in this time takes its instances for expired.
const LAST_GOODBYE: Duration = Duration::from_millis(500);

/// The records of this process, and the lease that they live by.
pub(super) struct Keeper {
    directory: Directory,
    metrics: Metrics,
    lease: u64,
    ttl: Duration,
    beat: u64,
    /// None while there is nothing to keep alive.
    beats_next: Option<Instant>,
    kept: BTreeMap<(EndpointId, WorkerId), Kept>,
    goodbyes: Vec<Goodbye>,
}

struct Kept {
    record: InstanceRecord,
    /// Gone when the registration was dropped.
    registration: Weak<()>,
}

struct Goodbye {
    until: Instant,
    path: PathBuf,
    owner: u64,
}

impl Keeper {
    /// Keeps nothing yet. `lease` is a random number.
    pub(super) fn new(directory: Directory, lease: u64, ttl: Duration, metrics: Metrics) -> Self {
        Self {
            directory,
            metrics,
            lease,
            ttl,
            beat: 0,
            beats_next: None,
            kept: BTreeMap::new(),
            goodbyes: Vec::new(),
        }
    }

    /// Writes an instance's record, and keeps it for as long as `registration` lives. `owner` is a
    /// random number.
    pub(super) fn register(
        &mut self,
        now: Instant,
        instance: &Instance,
        owner: u64,
        registration: Weak<()>,
    ) -> Result<(), FileError> {
        if self.beats_next.is_none() {
            self.beat(now)?;
        }
        let record = record::record(instance, owner, self.lease);
        self.write(&instance.endpoint, &record)?;
        let key = (instance.endpoint.clone(), instance.worker);
        let kept = Kept {
            record,
            registration,
        };
        self.kept.insert(key, kept);
        Ok(())
    }

    /// Says goodbye for an instance, unless another registration has replaced it.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        key: &(EndpointId, WorkerId),
        owner: u64,
    ) -> Result<(), FileError> {
        let Some(kept) = self.kept.get_mut(key) else {
            return Ok(());
        };
        if kept.record.owner != owner {
            return Ok(());
        }
        // Until it is said, every upkeep tries again.
        kept.registration = Weak::new();
        if self.owner_of(&key.0, key.1)? == Some(owner) {
            let mut record = self.kept[key].record.clone();
            record.leaving = true;
            self.write(&key.0, &record)?;
            let until = now + GOODBYE;
            let path = self.directory.instance(&key.0, key.1);
            self.goodbyes.push(Goodbye { until, path, owner });
        }
        self.kept.remove(key);
        Ok(())
    }

    /// Says goodbye for who was dropped.
    pub(super) fn leave_dropped(&mut self, now: Instant) -> Result<(), FileError> {
        let is_dropped = |kept: &Kept| kept.registration.strong_count() == 0;
        let dropped = self.kept.iter().filter(|(_, kept)| is_dropped(kept));
        let dropped: Vec<_> = dropped
            .map(|(key, kept)| (key.clone(), kept.record.owner))
            .collect();
        for (key, owner) in dropped {
            self.leave(now, &key, owner)?;
        }
        Ok(())
    }

    /// Shows that the process is alive, brings back records that were taken away, and removes those
    /// whose goodbye has been read.
    pub(super) fn upkeep(&mut self, now: Instant) -> Result<(), FileError> {
        self.leave_dropped(now)?;
        if self.beats_next.is_some_and(|next| next <= now) {
            self.beat(now)?;
            self.metrics.renewals.inc();
            self.repair()?;
        }
        let over: Vec<_> = self
            .goodbyes
            .extract_if(.., |bye| bye.until <= now)
            .collect();
        over.iter().try_for_each(|bye| self.remove(bye))
    }

    /// Says goodbye for everyone; gives when it has been read, so that nothing has to stay.
    pub(super) fn close(&mut self, now: Instant) -> Result<Instant, FileError> {
        let kept: Vec<_> = self
            .kept
            .iter()
            .map(|(key, kept)| (key.clone(), kept.record.owner))
            .collect();
        for (key, owner) in kept {
            self.leave(now, &key, owner)?;
        }
        let goodbyes = self.goodbyes.iter();
        let read = goodbyes.map(|bye| bye.until - GOODBYE + LAST_GOODBYE);
        Ok(read.max().unwrap_or(now))
    }

    /// Removes what is left of the process.
    pub(super) fn vanish(self) -> Result<(), FileError> {
        self.goodbyes.iter().try_for_each(|bye| self.remove(bye))?;
        self.directory.remove(&self.directory.lease(self.lease))
    }

    fn beat(&mut self, now: Instant) -> Result<(), FileError> {
        self.beat += 1;
        let lease = LeaseRecord {
            lease: self.lease,
            beat: self.beat,
            ttl_millis: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
        };
        let path = self.directory.lease(self.lease);
        self.directory
            .write(&path, &lease.encode_to_vec(), self.lease)?;
        self.beats_next = Some(now + self.ttl / 5);
        Ok(())
    }

    fn repair(&mut self) -> Result<(), FileError> {
        let mut replaced = Vec::new();
        for (key, kept) in &self.kept {
            match self.owner_of(&key.0, key.1)? {
                Some(owner) if owner == kept.record.owner => {}
                Some(_) => replaced.push(key.clone()),
                None => self.write(&key.0, &kept.record)?,
            }
        }
        for key in replaced {
            warn!(endpoint = %key.0, worker = key.1.0, "another process is this worker now");
            self.kept.remove(&key);
        }
        Ok(())
    }

    fn remove(&self, goodbye: &Goodbye) -> Result<(), FileError> {
        let bytes = read(&goodbye.path);
        let record = bytes
            .ok()
            .and_then(|bytes| InstanceRecord::decode(&*bytes).ok());
        match record.is_some_and(|record| record.owner == goodbye.owner) {
            true => self.directory.remove(&goodbye.path),
            false => Ok(()),
        }
    }

    /// Who keeps the record of an instance; none if there is no proper record.
    fn owner_of(&self, endpoint: &EndpointId, worker: WorkerId) -> Result<Option<u64>, FileError> {
        let bytes = match read(&self.directory.instance(endpoint, worker)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let record = record::read(&bytes, endpoint, worker);
        Ok(record.ok().map(|record| record.owner))
    }

    fn write(&self, endpoint: &EndpointId, record: &InstanceRecord) -> Result<(), FileError> {
        let path = self.directory.instance(endpoint, WorkerId(record.worker));
        self.directory
            .write(&path, &record.encode_to_vec(), self.lease)
    }
}
