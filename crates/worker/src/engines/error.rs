use std::path::PathBuf;

use forebay_runtime::{BlockingError, Signal};

/// Why there are no engines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range.
    #[error("{setting} must be {expected}")]
    Setting {
        /// The setting's key.
        setting: &'static str,
        /// Its range.
        expected: &'static str,
    },
    /// A setting of native engines cannot be.
    #[cfg(feature = "native")]
    #[error("wrong setting in `engine`")]
    NativeConfig(#[source] forebay_native_engine::StartError),
    /// A setting of mockers cannot be.
    #[cfg(feature = "mocker")]
    #[error("wrong setting in `mocker`")]
    MockerConfig(#[source] forebay_mock_engine::ConfigError),
    /// The model's name cannot be read.
    #[error(transparent)]
    Reference(#[from] forebay_model_store::RefError),
    /// The model cannot be had.
    #[error(transparent)]
    Model(#[from] forebay_model_store::Error),
    /// The model cannot be had, and who was asked for it said why.
    #[error("it said:\n{diagnostic}")]
    Said {
        /// What it said.
        diagnostic: String,
        /// What came of it.
        source: forebay_model_store::Error,
    },
    /// The model's file cannot be used.
    #[cfg(feature = "native")]
    #[error("cannot load {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: forebay_native_engine::LoadError,
    },
    /// A mocker with a model's tokenizer needs what reads that.
    #[error("cannot read {}: this build has no native engine (feature `native`)", path.display())]
    NotBuilt {
        /// The model's file.
        path: PathBuf,
    },
    /// A native engine does not start.
    #[cfg(feature = "native")]
    #[error("an engine does not start")]
    NativeStart(#[source] forebay_native_engine::StartError),
    /// A mocker does not start.
    #[cfg(feature = "mocker")]
    #[error("a mocker does not start")]
    MockerStart(#[source] forebay_mock_engine::ConfigError),
    /// A native engine has no model.
    #[error("a native engine needs a model")]
    NoModel,
    /// Nobody waits for them any more.
    #[error("the start was cancelled")]
    Cancelled,
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted(Signal),
    /// A thread ended without a result.
    #[error("the start broke off")]
    Broken(#[from] BlockingError),
}
