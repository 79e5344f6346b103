//! The cache's layout on disk, and what is remembered about each file.
//!
//! ```text
//! <cache>/models/<entry>/<file>.gguf            a complete, checked model
//! <cache>/models/<entry>/<file>.gguf.json       its record
//! <cache>/models/<entry>/<file>.gguf.part       what is being fetched, or can be continued
//! <cache>/models/<entry>/<file>.gguf.part.tag   of what the part is a part; only if it can be
//! <cache>/models/<entry>/<file>.gguf.tmp/       scratch space of a fetch that is running
//! <cache>/locks/<entry>                         locked by the process that fetches; empty
//! ```
//!
//! A file gets its final name by one rename, after its bytes were checked and written through to
//! the disk. Only the holder of an entry's lock writes in its directory, so what a killed process
//! left is overwritten or continued by the next.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest::Sha256Digest;
use crate::error::Error;
use crate::progress::{Phase, Progress};

const RECORD_FORMAT: u32 = 1;

/// Between two looks at a lock, a child process or a cancellation.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Bytes moved between two looks at the cancellation.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// One model's place in the cache.
#[derive(Debug)]
pub(crate) struct Entry {
    directory: PathBuf,
    lock: PathBuf,
    file_name: String,
}

/// What is remembered about a complete file, so that it need not be hashed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    modified_unix_nanos: u64,
    pub(crate) sha256: Sha256Digest,
}

/// Held while an entry is written; released when dropped or when the process dies.
#[derive(Debug)]
pub(crate) struct EntryLock {
    _file: File,
}

impl Entry {
    pub(crate) fn new(cache_dir: &Path, name: &str, file_name: &str) -> Self {
        let key = key(name);
        Self {
            directory: cache_dir.join("models").join(&key),
            lock: cache_dir.join("locks").join(&key),
            file_name: file_name.to_owned(),
        }
    }

    /// Where the complete file is, or will be.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.file_name)
    }

    pub(crate) fn part_path(&self) -> PathBuf {
        self.with_suffix(".part")
    }

    pub(crate) fn tag_path(&self) -> PathBuf {
        self.with_suffix(".part.tag")
    }

    pub(crate) fn scratch_path(&self) -> PathBuf {
        self.with_suffix(".tmp")
    }

    fn record_path(&self) -> PathBuf {
        self.with_suffix(".json")
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.file_name);
        name.push(suffix);
        self.directory.join(name)
    }

    /// Waits until no other process fetches this entry.
    pub(crate) fn lock(&self, cancel: &AtomicBool) -> Result<EntryLock, Error> {
        for directory in [&self.directory, &parent(&self.lock)] {
            fs::create_dir_all(directory).map_err(Error::cache("make directory", directory))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)
            .map_err(Error::cache("open lock", &self.lock))?;
        let mut waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(EntryLock { _file: file }),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::cache("lock", &self.lock)(source));
                }
                Err(TryLockError::WouldBlock) if cancel.load(Ordering::Relaxed) => {
                    return Err(Error::Cancelled);
                }
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut waiting, true) {
                        tracing::info!(lock = %self.lock.display(), "another process is fetching this model");
                    }
                    thread::sleep(POLL);
                }
            }
        }
    }

    /// The record, if the file is there and has not been touched since it was made.
    pub(crate) fn untouched(&self) -> Option<Record> {
        let record = read_record(&self.record_path())?;
        let (size_bytes, modified) = stat(&self.path()).ok()?;
        (record.size_bytes == size_bytes && record.modified_unix_nanos == modified)
            .then_some(record)
    }

    /// The record as it was made, whatever has happened to the file since.
    pub(crate) fn last_record(&self) -> Option<Record> {
        read_record(&self.record_path())
    }

    /// Remembers the complete file at [`path`](Self::path).
    pub(crate) fn remember(
        &self,
        name: &str,
        origin: &str,
        sha256: Sha256Digest,
    ) -> Result<Record, Error> {
        let path = self.path();
        let (size_bytes, modified_unix_nanos) =
            stat(&path).map_err(Error::cache("read the size of", &path))?;
        let record = Record {
            format: RECORD_FORMAT,
            name: name.to_owned(),
            origin: origin.to_owned(),
            file: self.file_name.clone(),
            size_bytes,
            modified_unix_nanos,
            sha256,
        };
        let text = serde_json::to_vec_pretty(&record).expect("a record is plain data");
        let (path, unfinished) = (self.record_path(), self.with_suffix(".json.part"));
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .inspect_err(|_| drop(fs::remove_file(&unfinished)))
            .map_err(Error::cache("write", &path))?;
        Ok(record)
    }

    /// Removes the directory if it holds nothing.
    pub(crate) fn tidy(&self) {
        // Fails when there is something in it, which is what is wanted.
        drop(fs::remove_dir(&self.directory));
    }
}

/// The records of all complete files below `cache_dir`, in no order.
pub(crate) fn records(cache_dir: &Path) -> Result<Vec<(PathBuf, Record)>, Error> {
    let models = cache_dir.join("models");
    let entries = match fs::read_dir(&models) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::cache("list", &models))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let directory = entry.map_err(Error::cache("list", &models))?.path();
        // An entry may vanish, or be no directory of ours.
        for file in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Some(record) = read_record(&file.path()) else {
                continue;
            };
            let path = directory.join(&record.file);
            if path.is_file() {
                found.push((path, record));
            }
        }
    }
    Ok(found)
}

/// Hashes a whole file.
pub(crate) fn hash(
    path: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Sha256Digest, Error> {
    let mut file = File::open(path).map_err(Error::cache("open", path))?;
    let size = file
        .metadata()
        .map_err(Error::cache("read the size of", path))?
        .len();
    let label = path.file_name().unwrap_or_default().to_string_lossy();
    progress.begin(Phase::Verifying, &label, 0, Some(size));
    let digest = hash_rest(&mut file, path, progress, cancel);
    progress.end();
    digest
}

fn hash_rest(
    file: &mut File,
    path: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Sha256Digest, Error> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let read = file.read(&mut chunk).map_err(Error::cache("read", path))?;
        if read == 0 {
            return Ok(Sha256Digest::from_bytes(hasher.finalize().into()));
        }
        hasher.update(&chunk[..read]);
        progress.advance(read as u64);
    }
}

/// Makes a rename in the directory of `path` survive a power cut, where the system can.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        let directory = parent(path);
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::cache("sync directory", &directory))?;
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn read_record(path: &Path) -> Option<Record> {
    if path.extension()? != "json" {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // A record names its own neighbour and nothing else.
    let neighbour = Path::new(&record.file).file_name()? == record.file.as_str();
    (record.format == RECORD_FORMAT && neighbour).then_some(record)
}

/// Size in bytes, and the time of the last change in nanoseconds since 1970.
fn stat(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    let since = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok((
        metadata.len(),
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    ))
}

/// A directory name for a model's name: the name itself where it is plain, else its readable part
/// and a digest that tells it from all others.
fn key(name: &str) -> String {
    let of_key = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() <= 64 && !name.starts_with('.') && !name.is_empty() && name.chars().all(of_key) {
        return name.to_owned();
    }
    let readable: String = name
        .chars()
        .map(|c| if of_key(c) { c } else { '-' })
        .take(80)
        .collect();
    let digest = Sha256Digest::from_bytes(Sha256::digest(name).into()).to_string();
    format!("{}-{}", readable.trim_start_matches('.'), &digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_and_tell_names_apart() {
        assert_eq!(key("smollm2-135m"), "smollm2-135m");
        let names = [
            "hf:a/b/x.gguf",
            "hf:a/b@x.gguf",
            "hf:a-b/x.gguf",
            "..",
            ".",
            "",
            "a/../b",
        ];
        let keys: std::collections::HashSet<_> = names.map(key).into();
        assert_eq!(keys.len(), names.len());
        for key in keys {
            assert!(!key.contains('/') && !key.starts_with('.'), "{key}");
        }
    }
}
