//! What every [`ModelSource`] must do, as a test anyone can run (feature `conformance`).

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::config::StoreConfig;
use crate::digest::Sha256Digest;
use crate::error::Error;
use crate::progress::{Phase, Progress};
use crate::source::ModelSource;
use crate::store::{Pin, Store};

/// Puts `source`, which must hold the model file `expected`, through the suite. The file should be
/// larger than a megabyte, so that it can be interrupted half-way.
///
/// # Panics
/// On the first thing that is not as it must be.
pub fn check(source: &dyn ModelSource, expected: &[u8]) {
    if let Some(path) = source.locate().expect("the source's file can be used") {
        assert_bytes(&path, expected);
        return;
    }
    delivers_once(source, expected);
    obeys_a_cancellation_before_it_starts(source);
    obeys_a_cancellation_half_way(source, expected);
    cannot_deliver_another_file(source, expected);
}

const NAME: &str = "conformance";

/// Sets its flag when the first bytes go through.
struct CancelAtFirstBytes<'a>(&'a AtomicBool);

impl Progress for CancelAtFirstBytes<'_> {
    fn begin(&self, _: Phase, _: &str, _: u64, _: Option<u64>) {}
    fn advance(&self, _: u64) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn end(&self) {}
}

fn delivers_once(source: &dyn ModelSource, expected: &[u8]) {
    let (store, _directory) = store();
    let never = AtomicBool::new(false);
    let first = store
        .pull_from(source, NAME, None, &(), &never)
        .expect("the model is fetched");
    assert_bytes(&first.path, expected);
    assert_eq!(first.sha256, Some(digest(expected)));
    assert_eq!(first.size_bytes, expected.len() as u64);
    assert_eq!(first.origin, source.origin());
    assert_eq!(first.path.file_name(), Some(source.file_name().as_ref()));
    // The flag proves that nothing is fetched: a fetch would be cancelled at its first bytes.
    let cancel = AtomicBool::new(false);
    let second = store.pull_from(source, NAME, None, &CancelAtFirstBytes(&cancel), &cancel);
    assert_eq!(second.expect("the model is cached"), first);
}

fn obeys_a_cancellation_before_it_starts(source: &dyn ModelSource) {
    let (store, directory) = store();
    let cancelled = AtomicBool::new(true);
    let result = store.pull_from(source, NAME, None, &(), &cancelled);
    assert!(
        matches!(result, Err(Error::Cancelled)),
        "cancelled before the start: {result:?}"
    );
    assert_nothing_left(directory.path());
}

fn obeys_a_cancellation_half_way(source: &dyn ModelSource, expected: &[u8]) {
    let (store, _directory) = store();
    let cancel = AtomicBool::new(false);
    let result = store.pull_from(source, NAME, None, &CancelAtFirstBytes(&cancel), &cancel);
    assert!(
        matches!(result, Err(Error::Cancelled)),
        "cancelled half-way: {result:?}"
    );
    assert_eq!(
        store.list().expect("the cache can be listed"),
        [],
        "a half file has a name"
    );
    let never = AtomicBool::new(false);
    let again = store
        .pull_from(source, NAME, None, &(), &never)
        .expect("the model is fetched");
    assert_bytes(&again.path, expected);
}

fn cannot_deliver_another_file(source: &dyn ModelSource, expected: &[u8]) {
    let (store, directory) = store();
    let never = AtomicBool::new(false);
    let pin = Pin {
        size_bytes: expected.len() as u64,
        sha256: digest(b"another file"),
    };
    let result = store.pull_from(source, NAME, Some(&pin), &(), &never);
    assert!(
        matches!(result, Err(Error::WrongDigest { .. })),
        "wrong digest: {result:?}"
    );
    assert_nothing_left(directory.path());
    let pin = Pin {
        size_bytes: expected.len() as u64 - 1,
        sha256: digest(expected),
    };
    let result = store.pull_from(source, NAME, Some(&pin), &(), &never);
    assert!(
        matches!(result, Err(Error::WrongSize { .. })),
        "wrong size: {result:?}"
    );
    assert_nothing_left(directory.path());
}

fn store() -> (Store, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    (Store::new(StoreConfig::new(directory.path())), directory)
}

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(Sha256::digest(bytes).into())
}

fn assert_bytes(path: &Path, expected: &[u8]) {
    // Not assert_eq: it would print megabytes.
    assert!(
        fs::read(path).is_ok_and(|bytes| bytes == expected),
        "{path} has other bytes than the model",
        path = path.display()
    );
}

/// The cache holds no model, nor anything of one.
fn assert_nothing_left(cache: &Path) {
    let models: Vec<_> = fs::read_dir(cache.join("models"))
        .into_iter()
        .flatten()
        .collect();
    assert!(models.is_empty(), "left in the cache: {models:?}");
}
