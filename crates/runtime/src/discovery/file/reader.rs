use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forebay_observability::ErrorChain;
use forebay_protocols::discovery::InstanceRecord;
use forebay_tokens::WorkerId;
use tracing::{info, warn};

use super::super::board::{Board, Gone};
use super::super::{Instance, record};
use super::directory::{Directory, FileError, read};
use super::leases::Leases;
use crate::names::EndpointId;

/// A folder is listed at least this often, also if it seems unchanged: file systems tell changes
/// in ticks of their own.
const LIST: Duration = Duration::from_secs(1);

/// What is known of the records of one endpoint.
pub(super) struct Reader {
    directory: Directory,
    endpoint: EndpointId,
    folder: PathBuf,
    folder_stamp: Option<SystemTime>,
    listed: Option<Duration>,
    files: BTreeMap<WorkerId, File>,
    /// Names that were complained about.
    warned: HashSet<String>,
}

#[derive(Clone)]
struct File {
    stamp: Stamp,
    /// None: it is no record of this instance.
    record: Option<InstanceRecord>,
}

/// Changes when a file is replaced.
type Stamp = (Option<SystemTime>, u64, u64);

impl Reader {
    pub(super) fn new(directory: Directory, endpoint: EndpointId) -> Self {
        let folder = directory.endpoint(&endpoint);
        Self {
            directory,
            endpoint,
            folder,
            folder_stamp: None,
            listed: None,
            files: BTreeMap::new(),
            warned: HashSet::new(),
        }
    }

    /// Reads what has changed; with `all`, everything.
    pub(super) fn look(&mut self, now: Duration, all: bool) -> Result<(), FileError> {
        let stamp = match fs::metadata(&self.folder) {
            Ok(folder) => folder.modified().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Nobody has registered yet; or nothing can be known.
                self.directory.check()?;
                self.files.clear();
                self.folder_stamp = None;
                return Ok(());
            }
            Err(error) => return Err(FileError::at(&self.folder)(error)),
        };
        let is_due = self.listed.is_none_or(|listed| now - listed >= LIST);
        if all || is_due || stamp != self.folder_stamp {
            self.list(all)?;
            self.listed = Some(now);
            self.folder_stamp = stamp;
        }
        Ok(())
    }

    /// Who is there.
    pub(super) fn present(&self, leases: &mut Leases, now: Duration) -> Vec<Instance> {
        let is_alive = |record: &&InstanceRecord| {
            !record.leaving && leases.over_for(record.lease, now).is_none()
        };
        let records = self.files.values().filter_map(|file| file.record.as_ref());
        records
            .filter(is_alive)
            .map(|record| record::instance(record.clone(), &self.endpoint))
            .collect()
    }

    /// Brings the board to what is known.
    pub(super) fn tell(&self, leases: &mut Leases, now: Duration, board: &Board) {
        for known in board.list(&self.endpoint) {
            if !self.files.contains_key(&known.worker) {
                board.remove(&self.endpoint, known.worker, Gone::Expired);
            }
        }
        for (worker, file) in &self.files {
            // A record that turned into something else says nothing of its instance.
            let Some(record) = &file.record else {
                continue;
            };
            if record.leaving {
                board.remove(&self.endpoint, *worker, Gone::Left);
            } else if leases.over_for(record.lease, now).is_some() {
                board.remove(&self.endpoint, *worker, Gone::Expired);
            } else {
                board.put(record::instance(record.clone(), &self.endpoint));
            }
        }
    }

    /// Where the records are, if there were any.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder_stamp.map(|_| &*self.folder)
    }

    /// Removes the records of dead processes.
    pub(super) fn sweep(&self, leases: &mut Leases, now: Duration) -> Result<(), FileError> {
        for (worker, file) in &self.files {
            let Some(record) = &file.record else {
                continue;
            };
            if leases.is_left_behind(record.lease, now) {
                info!(endpoint = %self.endpoint, worker = worker.0, "dead worker's record removed");
                let path = self.directory.instance(&self.endpoint, *worker);
                self.directory.remove(&path)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, all: bool) -> Result<(), FileError> {
        let folder = self.folder.clone();
        let mut files = BTreeMap::new();
        let mut names = HashSet::new();
        for entry in fs::read_dir(&folder).map_err(FileError::at(&folder))? {
            let entry = entry.map_err(FileError::at(&folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            names.insert(name.clone());
            let Some(worker) = record::worker(&name) else {
                self.complain(&name, "its name is no worker's");
                continue;
            };
            if let Some(file) = self.file(&entry, worker, all) {
                files.insert(worker, file);
            }
        }
        self.files = files;
        self.warned.retain(|name| names.contains(name));
        Ok(())
    }

    /// A file as it is now; as it was, if it cannot be read; none, if it has gone.
    fn file(&mut self, entry: &fs::DirEntry, worker: WorkerId, all: bool) -> Option<File> {
        let known = self.files.get(&worker).cloned();
        let stamp = stamp(&entry.metadata().ok()?);
        if !all && known.as_ref().is_some_and(|known| known.stamp == stamp) {
            return known;
        }
        let name = record::name(worker);
        match read(&entry.path()) {
            Ok(bytes) => Some(File {
                stamp,
                record: self.record(&bytes, &name, worker),
            }),
            Err(error) if error.is_missing() => None,
            Err(error) => {
                self.complain(&name, &ErrorChain(&error).to_string());
                known
            }
        }
    }

    fn record(&mut self, bytes: &[u8], name: &str, worker: WorkerId) -> Option<InstanceRecord> {
        match record::read(bytes, &self.endpoint, worker) {
            Ok(record) => Some(record),
            Err(error) => {
                self.complain(name, &ErrorChain(&error).to_string());
                None
            }
        }
    }

    /// Says once of each file what is wrong with it.
    fn complain(&mut self, name: &str, reason: &str) {
        if self.warned.insert(name.to_owned()) {
            let path = self.folder.join(name);
            warn!(path = %path.display(), reason, "file is not used");
        }
    }
}

#[cfg(unix)]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.modified().ok(), metadata.len(), metadata.ino())
}

#[cfg(not(unix))]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.modified().ok(), metadata.len(), 0)
}
