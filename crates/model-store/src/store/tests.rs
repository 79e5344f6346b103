use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::conformance;
use crate::progress::Phase;
use crate::source::MemorySource;

static NEVER: AtomicBool = AtomicBool::new(false);

/// A "model" of some chunks' size.
fn model(seed: u8) -> Vec<u8> {
    let body = (0..600_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed);
    b"GGUF".iter().copied().chain(body).collect()
}

fn memory(seed: u8) -> MemorySource {
    MemorySource::new("m.gguf", model(seed))
}

fn pin(bytes: &[u8]) -> Pin {
    Pin {
        size_bytes: bytes.len() as u64,
        sha256: Sha256Digest::from_bytes(Sha256::digest(bytes).into()),
    }
}

fn store() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Store::new(StoreConfig::new(directory.path())), directory)
}

/// Remembers which phases began.
#[derive(Default)]
struct Phases(Mutex<Vec<Phase>>);

impl Phases {
    fn seen(self) -> Vec<Phase> {
        self.0.into_inner().unwrap()
    }
}

impl Progress for Phases {
    fn begin(&self, phase: Phase, _: &str, _: u64, _: Option<u64>) {
        self.0.lock().unwrap().push(phase);
    }
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// Counts how often it is asked for its bytes, and waits for company before it gives them.
#[derive(Debug)]
struct Counted {
    inner: MemorySource,
    fetches: AtomicUsize,
}

impl ModelSource for Counted {
    fn origin(&self) -> String {
        self.inner.origin()
    }
    fn file_name(&self) -> &str {
        self.inner.file_name()
    }
    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.inner.fetch(staging)
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn memory_conforms() {
    let bytes = model(0);
    conformance::check(&MemorySource::new("m.gguf", bytes.clone()), &bytes);
}

#[test]
fn a_local_file_conforms_and_is_used_where_it_is() {
    let (store, directory) = store();
    let path = directory.path().join("x.gguf");
    fs::write(&path, model(0)).unwrap();
    conformance::check(&LocalSource::new(&path), &model(0));
    let reference = ModelRef::parse(path.to_str().unwrap()).unwrap();
    let pulled = store.pull(&reference, &(), &NEVER).unwrap();
    assert_eq!(pulled.path, path);
    assert_eq!(pulled.size_bytes, model(0).len() as u64);
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_local_file_that_is_no_model_is_refused_by_name() {
    let (store, directory) = store();
    let pull = |path: &Path| {
        store
            .pull(&ModelRef::Local(path.to_owned()), &(), &NEVER)
            .unwrap_err()
    };

    let missing = directory.path().join("missing.gguf");
    let error = pull(&missing);
    assert!(matches!(error, Error::LocalFile { .. }));
    assert!(error.to_string().contains("missing.gguf"));

    assert!(matches!(pull(directory.path()), Error::LocalFile { .. }));

    for contents in [&b"PK\x03\x04 a zip"[..], b"GG", b""] {
        let other = directory.path().join("other.gguf");
        fs::write(&other, contents).unwrap();
        assert!(matches!(pull(&other), Error::NotGguf { path } if path == other));
    }
}

#[test]
fn what_is_fetched_must_be_a_model() {
    let (store, directory) = store();
    let source = MemorySource::new("m.gguf", *b"<html>not found</html>");
    let error = store
        .pull_from(&source, "m", None, &(), &NEVER)
        .unwrap_err();
    assert!(matches!(error, Error::NotGguf { .. }));
    assert!(!directory.path().join("models/m").exists());
}

#[test]
fn an_untouched_file_is_not_hashed_again_and_a_touched_one_is() {
    let (store, _directory) = store();
    let pull = |phases: &Phases| {
        store
            .pull_from(&memory(0), "m", None, phases, &NEVER)
            .unwrap()
    };

    let phases = Phases::default();
    let first = pull(&phases);
    assert_eq!(phases.seen(), [Phase::Fetching]);

    let phases = Phases::default();
    assert_eq!(pull(&phases), first);
    assert_eq!(phases.seen(), []);

    set_modified(&first.path, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let phases = Phases::default();
    assert_eq!(pull(&phases), first);
    assert_eq!(phases.seen(), [Phase::Verifying]);

    // That it is whole is remembered again.
    let phases = Phases::default();
    pull(&phases);
    assert_eq!(phases.seen(), []);
}

#[test]
fn a_damaged_file_is_fetched_again() {
    for pin in [None, Some(pin(&model(0)))] {
        let (store, _directory) = store();
        let pull = |phases: &Phases| {
            store
                .pull_from(&memory(0), "m", pin.as_ref(), phases, &NEVER)
                .unwrap()
        };
        let path = pull(&Phases::default()).path;

        let mut damaged = model(0);
        damaged[300_000] ^= 1;
        fs::write(&path, damaged).unwrap();
        set_modified(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let phases = Phases::default();
        pull(&phases);
        assert_eq!(phases.seen(), [Phase::Verifying, Phase::Fetching]);
        assert!(fs::read(&path).unwrap() == model(0));
    }
}

#[test]
fn a_file_without_a_record_is_adopted_only_if_its_digest_is_known() {
    let (store, directory) = store();
    let path = store
        .pull_from(&memory(0), "m", None, &(), &NEVER)
        .unwrap()
        .path;
    fs::write(
        directory.path().join("models/m/m.gguf.json"),
        "{ half a rec",
    )
    .unwrap();
    assert_eq!(store.list().unwrap(), []);

    let phases = Phases::default();
    store
        .pull_from(&memory(0), "m", Some(&pin(&model(0))), &phases, &NEVER)
        .unwrap();
    assert_eq!(phases.seen(), [Phase::Verifying]);

    fs::remove_file(directory.path().join("models/m/m.gguf.json")).unwrap();
    fs::write(&path, b"GGUF of unknown origin").unwrap();
    let phases = Phases::default();
    store
        .pull_from(&memory(0), "m", None, &phases, &NEVER)
        .unwrap();
    assert_eq!(phases.seen(), [Phase::Fetching]);
}

#[test]
fn a_new_pin_replaces_the_file() {
    let (store, _directory) = store();
    store
        .pull_from(&memory(0), "m", Some(&pin(&model(0))), &(), &NEVER)
        .unwrap();
    let new = store
        .pull_from(&memory(1), "m", Some(&pin(&model(1))), &(), &NEVER)
        .unwrap();
    assert!(fs::read(new.path).unwrap() == model(1));
}

#[test]
fn what_a_killed_process_left_is_cleared_away() {
    let (store, directory) = store();
    let entry = directory.path().join("models/m");
    fs::create_dir_all(entry.join("m.gguf.tmp/wheels")).unwrap();
    fs::write(entry.join("m.gguf.part"), b"GGUF half").unwrap();
    assert_eq!(store.list().unwrap(), []);
    let pulled = store.pull_from(&memory(0), "m", None, &(), &NEVER).unwrap();
    assert!(fs::read(pulled.path).unwrap() == model(0));
    assert!(!entry.join("m.gguf.part").exists());
}

/// Locks are held per open file, so threads meet as processes do.
#[test]
fn concurrent_pulls_fetch_once() {
    let (store, _directory) = store();
    let source = Counted {
        inner: memory(0),
        fetches: AtomicUsize::new(0),
    };
    let start = Barrier::new(4);
    let pulled = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    store.pull_from(&source, "m", None, &(), &NEVER).unwrap()
                })
            })
            .collect();
        pulls
            .into_iter()
            .map(|pull| pull.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(source.fetches.load(Ordering::SeqCst), 1);
    assert!(pulled.iter().all(|model| model == &pulled[0]));
}

#[test]
fn waiting_for_another_process_can_be_cancelled() {
    let (store, directory) = store();
    let entry = Entry::new(directory.path(), "m", "m.gguf");
    let _held = entry.lock(&NEVER).unwrap();
    let cancelled = AtomicBool::new(true);
    let error = store
        .pull_from(&memory(0), "m", None, &(), &cancelled)
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let (store, directory) = store();
    let entry = directory.path().join("models/m");
    fs::create_dir_all(&entry).unwrap();
    // Every write to this device fails as on a full disk.
    std::os::unix::fs::symlink("/dev/full", entry.join("m.gguf.part")).unwrap();
    let error = store
        .pull_from(&memory(0), "m", None, &(), &NEVER)
        .unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(!entry.exists());
    assert!(Path::new("/dev/full").exists());
}

#[test]
fn models_are_listed_and_shown() {
    let (store, _directory) = store();
    assert_eq!(store.list().unwrap(), []);
    let b = store.pull_from(&memory(1), "b", None, &(), &NEVER).unwrap();
    let a = store
        .pull_from(&memory(0), "hf:a/a/m.gguf", None, &(), &NEVER)
        .unwrap();
    assert_eq!(store.list().unwrap(), [b, a]);

    let known = store
        .show(&ModelRef::parse("SmolLM2-135M-Instruct").unwrap())
        .unwrap();
    assert_eq!(known.name, "smollm2-135m");
    assert_eq!(known.licence, Some("Apache-2.0"));
    assert_eq!(known.size_bytes, Some(98_362_432));
    assert_eq!(known.path, None);
}

#[cfg(feature = "hf")]
#[test]
fn a_cached_model_is_shown_and_pulled_without_its_source() {
    let (mut store, _directory) = store();
    // Nothing listens there.
    store.config.hub.endpoint = "http://127.0.0.1:1".to_owned();
    let reference = ModelRef::parse("hf:acme/tiny/m.gguf").unwrap();
    let pulled = store
        .pull_from(&memory(0), &reference.to_string(), None, &(), &NEVER)
        .unwrap();
    assert_eq!(
        store.pull(&reference, &(), &NEVER).unwrap().path,
        pulled.path
    );
    assert_eq!(store.show(&reference).unwrap().path, Some(pulled.path));
}
