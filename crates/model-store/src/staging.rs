//! Where a source puts a model's bytes before they are one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::cache::{self, CHUNK_BYTES, Entry};
use crate::digest::Sha256Digest;
use crate::error::Error;
use crate::gguf;
use crate::progress::{Phase, Progress};
use crate::store::Pin;

/// A model on its way into the cache.
///
/// A [`ModelSource`](crate::ModelSource) writes the whole file through
/// [`copy_from`](Self::copy_from); the store then checks it and gives it its name. Dropped before
/// that, it leaves nothing behind, except for a part that the source said it can continue.
pub struct Staging<'a> {
    entry: &'a Entry,
    name: &'a str,
    size_bytes: Option<u64>,
    sha256: Option<Sha256Digest>,
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
    file: Option<File>,
    hasher: Sha256,
    written_bytes: u64,
    resumable: bool,
    scratch: Option<PathBuf>,
}

/// Why bytes could not be copied into a [`Staging`].
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The reader failed: the source says what that means.
    #[error("the bytes cannot be read")]
    Read(#[source] io::Error),
    /// They could not be kept, or the pull was cancelled: the source passes it on.
    #[error(transparent)]
    Keep(#[from] Error),
}

impl<'a> Staging<'a> {
    pub(crate) fn new(
        entry: &'a Entry,
        name: &'a str,
        pin: Option<&Pin>,
        progress: &'a dyn Progress,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self {
            entry,
            name,
            size_bytes: pin.map(|pin| pin.size_bytes),
            sha256: pin.map(|pin| pin.sha256),
            progress,
            cancel,
            file: None,
            hasher: Sha256::new(),
            written_bytes: 0,
            resumable: false,
            scratch: None,
        }
    }

    /// The model's name, for messages.
    pub fn name(&self) -> &str {
        self.name
    }

    /// How many bytes of the file are here.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The source learned what the file must be; the store will hold it to that.
    ///
    /// # Errors
    /// It is not the file that is wanted: [`Error::WrongSize`] or [`Error::WrongDigest`].
    pub fn announce(&mut self, size_bytes: u64, sha256: Option<Sha256Digest>) -> Result<(), Error> {
        self.check_size(size_bytes)?;
        self.check_digest(sha256)?;
        self.size_bytes = Some(size_bytes);
        self.sha256 = self.sha256.or(sha256);
        Ok(())
    }

    fn check_size(&self, actual: u64) -> Result<(), Error> {
        match self.size_bytes.filter(|&expected| expected != actual) {
            Some(expected) => Err(Error::WrongSize {
                name: self.name.to_owned(),
                expected,
                actual,
            }),
            None => Ok(()),
        }
    }

    fn check_digest(&self, actual: Option<Sha256Digest>) -> Result<(), Error> {
        match (self.sha256, actual) {
            (Some(expected), Some(actual)) if expected != actual => Err(Error::WrongDigest {
                name: self.name.to_owned(),
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }

    /// To be asked wherever a source waits.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once the caller asked to stop.
    pub fn check_cancelled(&self) -> Result<(), Error> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// An empty directory on the cache's file system, gone when the fetch ends.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn scratch_dir(&mut self) -> Result<PathBuf, Error> {
        let path = self.entry.scratch_path();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::cache("empty directory", &path)(error));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(Error::cache("make directory", &path))?;
        self.scratch = Some(path.clone());
        Ok(path)
    }

    /// Keeps what an interrupted fetch of the same `tag` left, and from now on whatever arrives,
    /// for the next fetch to continue. Returns how many bytes are already here.
    ///
    /// `tag` names the content (a digest, an ETag), so that parts of different files are never
    /// put together. Called once, before anything is copied.
    ///
    /// # Errors
    /// The cache cannot be read or written; cancelled while the part is read.
    pub fn resume(&mut self, tag: &str) -> Result<u64, Error> {
        let (part, tag_path) = (self.entry.part_path(), self.entry.tag_path());
        let same = fs::read(&tag_path).is_ok_and(|old| old == tag.as_bytes());
        if !same || !part.exists() {
            self.restart()?;
            fs::write(&tag_path, tag).map_err(Error::cache("write", &tag_path))?;
            self.resumable = true;
            return Ok(0);
        }
        self.resumable = true;
        let mut file = File::options()
            .read(true)
            .append(true)
            .open(&part)
            .map_err(Error::cache("open", &part))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            self.check_cancelled()?;
            let read = file.read(&mut chunk).map_err(Error::cache("read", &part))?;
            if read == 0 {
                break;
            }
            self.hasher.update(&chunk[..read]);
            self.written_bytes += read as u64;
        }
        self.file = Some(file);
        Ok(self.written_bytes)
    }

    /// Forgets all bytes that are here.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn restart(&mut self) -> Result<(), Error> {
        let part = self.entry.part_path();
        self.file = Some(File::create(&part).map_err(Error::cache("make", &part))?);
        self.hasher = Sha256::new();
        self.written_bytes = 0;
        Ok(())
    }

    /// Appends everything that `reader` gives, and returns how many bytes that was.
    ///
    /// # Errors
    /// The reader's error, apart from everything else: cancelled, disk full, more bytes than the
    /// model has.
    pub fn copy_from(&mut self, phase: Phase, reader: &mut dyn Read) -> Result<u64, CopyError> {
        let file_name = self.entry.path();
        let label = file_name.file_name().unwrap_or_default().to_string_lossy();
        self.progress
            .begin(phase, &label, self.written_bytes, self.size_bytes);
        let copied = self.copy(reader);
        self.progress.end();
        copied
    }

    fn copy(&mut self, reader: &mut dyn Read) -> Result<u64, CopyError> {
        if self.file.is_none() {
            self.restart()?;
        }
        let file = self.file.as_mut().expect("restart opens the file");
        let before = self.written_bytes;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let read = match reader.read(&mut chunk) {
                Ok(0) => return Ok(self.written_bytes - before),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(error)),
            };
            let bytes = &chunk[..read];
            let total = self.written_bytes + read as u64;
            if let Some(expected) = self.size_bytes.filter(|&expected| total > expected) {
                self.resumable = false;
                let name = self.name.to_owned();
                return Err(CopyError::Keep(Error::WrongSize {
                    name,
                    expected,
                    actual: total,
                }));
            }
            file.write_all(bytes)
                .map_err(Error::cache("write", &self.entry.part_path()))?;
            self.hasher.update(bytes);
            self.written_bytes = total;
            self.progress.advance(read as u64);
        }
    }

    /// Checks the file, gives it its name, and returns its digest.
    pub(crate) fn finish(mut self) -> Result<Sha256Digest, Error> {
        self.check_cancelled()?;
        if self.file.is_none() {
            self.restart()?;
        }
        // Bytes that turn out wrong must not be continued by the next fetch.
        self.resumable = false;
        let sha256 = Sha256Digest::from_bytes(std::mem::take(&mut self.hasher).finalize().into());
        self.check_size(self.written_bytes)?;
        self.check_digest(Some(sha256))?;
        let (part, path) = (self.entry.part_path(), self.entry.path());
        let written = File::open(&part).map_err(Error::cache("open", &part))?;
        if !gguf::has_magic(&written).map_err(Error::cache("read", &part))? {
            return Err(Error::NotGguf { path });
        }
        let file = self.file.take().expect("opened above");
        file.sync_all().map_err(Error::cache("write", &part))?;
        drop((file, written));
        fs::rename(&part, &path).map_err(Error::cache("make", &path))?;
        cache::sync_directory(&path)?;
        Ok(sha256)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Closed first: an open file cannot be removed everywhere. Nothing can be done about a
        // failure here; the next fetch of the entry overwrites what is left.
        self.file = None;
        if let Some(scratch) = &self.scratch {
            drop(fs::remove_dir_all(scratch));
        }
        if !self.resumable || self.written_bytes == 0 {
            drop(fs::remove_file(self.entry.part_path()));
            drop(fs::remove_file(self.entry.tag_path()));
        }
        self.entry.tidy();
    }
}

impl std::fmt::Debug for Staging<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging")
            .field("name", &self.name)
            .field("written_bytes", &self.written_bytes)
            .field("resumable", &self.resumable)
            .finish_non_exhaustive()
    }
}
