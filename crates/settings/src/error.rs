use std::path::PathBuf;

use crate::leaf::origin;

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key that no setting has.
    #[error("unknown setting `{key}` ({origin}){}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The key.
        key: String,
        /// Where it came from.
        origin: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A value of the wrong kind.
    #[error("setting `{key}` ({origin}): {problem}")]
    Value {
        /// The setting's key.
        key: String,
        /// Where the value came from.
        origin: String,
        /// What is wrong with it.
        problem: Box<figment::error::Kind>,
    },
    /// A file that is not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<figment::Error>,
    },
    /// Whatever else keeps the layers from being put together.
    #[error(transparent)]
    Layers(Box<figment::Error>),
}

impl From<figment::Error> for Error {
    fn from(error: figment::Error) -> Self {
        if error.path.is_empty() {
            return Self::Layers(Box::new(error));
        }
        let key = error.path.join(".");
        Self::Value {
            origin: origin(error.metadata.as_ref(), &key),
            key,
            problem: Box::new(error.kind),
        }
    }
}
