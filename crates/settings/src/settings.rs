use std::fmt::Write as _;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::{Figment, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::config::environment;
use crate::flag::Flag;
use crate::layer::Layer;
use crate::leaf::{Leaf, leaves, toml};

/// A component's settings and where each came from.
#[derive(Debug)]
pub struct Settings<T> {
    /// The settings.
    pub values: T,
    leaves: Vec<Leaf>,
}

impl<T: Serialize + DeserializeOwned + Default> Settings<T> {
    /// Reads the layers of a component: its defaults, a TOML file, the environment as
    /// `FOREBAY_<COMPONENT>__<KEY>` with `__` for the dots of a key, and flags.
    ///
    /// `open` are the keys of tables whose entries the user names, such as HTTP headers.
    ///
    /// # Errors
    ///
    /// [`Error`], for the first key or value that cannot be.
    pub fn load(
        component: &str,
        file: Option<&Path>,
        flags: Vec<Flag>,
        open: &[&str],
    ) -> Result<Self, Error> {
        Self::of_layers(file, environment(component), flags, open)
    }

    fn of_layers(
        file: Option<&Path>,
        environment: impl Provider,
        flags: Vec<Flag>,
        open: &[&str],
    ) -> Result<Self, Error> {
        let mut layers = Figment::from(Layer::defaults(T::default())?);
        let known: Vec<String> = leaves(&layers)?.into_iter().map(|leaf| leaf.key).collect();
        if let Some(file) = file {
            // Looked at first: what figment says of a missing file does not name it.
            std::fs::metadata(file).map_err(|source| Error::File {
                path: file.to_owned(),
                source,
            })?;
            layers = layers.merge(Toml::file_exact(file));
            layers.data().map_err(|source| Error::Syntax {
                path: file.to_owned(),
                source: Box::new(source),
            })?;
        }
        layers = layers.merge(environment);
        for flag in flags {
            layers = layers.merge(Layer::flag(flag));
        }

        let leaves = leaves(&layers)?;
        for leaf in &leaves {
            let below = |parent: &str| {
                let rest = leaf.key.strip_prefix(parent);
                rest.is_some_and(|rest| rest.starts_with('.'))
            };
            let is_known = known.contains(&leaf.key) || open.iter().any(|table| below(table));
            // A table in place of a value, or the reverse, is for the deserializer to name.
            let is_misplaced = known.iter().any(|key| {
                below(key)
                    || key
                        .strip_prefix(&*leaf.key)
                        .is_some_and(|rest| rest.starts_with('.'))
            });
            if !is_known && !is_misplaced {
                return Err(Error::Unknown {
                    key: leaf.key.clone(),
                    origin: leaf.origin.clone(),
                    nearest: nearest(&leaf.key, &known),
                });
            }
        }
        Ok(Self {
            values: layers.extract()?,
            leaves,
        })
    }
}

impl<T> Settings<T> {
    /// Every setting as a line of TOML with its origin; those whose key `is_secret` says so are
    /// masked.
    pub fn print(&self, is_secret: impl Fn(&str) -> bool) -> String {
        let mut lines = String::new();
        for Leaf { key, value, origin } in &self.leaves {
            let line = match toml(value) {
                None => format!("# {key} is not set ({origin})"),
                Some(_) if is_secret(key) => format!("{key} = \"(secret)\"  # {origin}"),
                Some(value) => format!("{key} = {value}  # {origin}"),
            };
            writeln!(lines, "{line}").expect("a String takes every line");
        }
        lines
    }
}

fn nearest(key: &str, known: &[String]) -> Option<String> {
    let distance = |known: &String| {
        // The last part alone counts too: `port` for `frontend.port`.
        let last = known.rsplit('.').next().unwrap_or(known);
        strsim::damerau_levenshtein(known, key).min(strsim::damerau_levenshtein(last, key))
    };
    known
        .iter()
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) <= 1 + key.len() / 4)
        .cloned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use figment::Metadata;
    use figment::value::{Dict, Value};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        model: String,
        secret: Option<String>,
        server: Server,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Server {
        port: u16,
        grace_seconds: f64,
        headers: std::collections::BTreeMap<String, String>,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                model: "m".into(),
                secret: None,
                server: Server::default(),
            }
        }
    }

    impl Default for Server {
        fn default() -> Self {
            Self {
                port: 8000,
                grace_seconds: 30.0,
                headers: Default::default(),
            }
        }
    }

    /// What the environment would say.
    fn said(pairs: &[(&str, &str)]) -> Layer {
        let mut dict = Dict::new();
        for (key, value) in pairs {
            let nested = figment::util::nest(key, value.parse::<Value>().unwrap());
            dict.extend(nested.into_dict().unwrap());
        }
        Layer {
            metadata: Metadata::named("`FOREBAY_TEST__` environment variable(s)"),
            dict,
        }
    }

    fn load(
        file: &str,
        pairs: &[(&str, &str)],
        flags: Vec<Flag>,
    ) -> Result<Settings<Sample>, Error> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path, file.as_bytes()).unwrap();
        Settings::of_layers(Some(path.path()), said(pairs), flags, &["server.headers"])
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let file = "model = \"file\"\n[server]\nport = 1\ngrace_seconds = 1";
        let flags = vec![Flag::new("--port", "server.port", 3u16)];
        let settings = load(file, &[("server.grace_seconds", "2.5")], flags).unwrap();
        assert_eq!(settings.values.model, "file");
        assert_eq!(settings.values.server.port, 3);
        assert_eq!(settings.values.server.grace_seconds, 2.5);
        let printed = settings.print(|_| false);
        assert!(
            printed.contains("server.port = 3  # flag --port"),
            "{printed}"
        );
        assert!(printed.contains("model = \"file\"  # file "), "{printed}");
        assert!(
            printed.contains(
                "server.grace_seconds = 2.5  # environment FOREBAY_TEST__SERVER__GRACE_SECONDS"
            ),
            "{printed}"
        );
        assert!(
            printed.contains("# secret is not set (default)"),
            "{printed}"
        );
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = load("[server]\nprot = 1", &[], vec![]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("unknown setting `server.prot` (file ")
        );
        assert!(error.to_string().ends_with("did you mean `server.port`?"));
        let error = load("", &[("modle", "x")], vec![]).unwrap_err();
        assert!(
            error.to_string().ends_with("did you mean `model`?"),
            "{error}"
        );
        let flag = Flag::parse_set("port=7").unwrap();
        let error = load("", &[], vec![flag]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown setting `port` (flag --set); did you mean `server.port`?"
        );
        let error = load("completely_different = 1", &[], vec![]).unwrap_err();
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        let error = load("[server]\nport = \"many\"", &[], vec![]).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("setting `server.port` (file "), "{error}");
        assert!(error.contains("found string \"many\""), "{error}");
        let error = load("server = 7", &[], vec![]).unwrap_err();
        assert!(error.to_string().contains("`server`"), "{error}");
        let error = load("", &[("server.port", "-1")], vec![]).unwrap_err();
        assert!(
            (error.to_string())
                .starts_with("setting `server.port` (environment FOREBAY_TEST__SERVER__PORT): "),
            "{error}"
        );
        let flag = Flag::new("--port", "server.port", true);
        let error = load("", &[], vec![flag]).unwrap_err();
        assert!(
            (error.to_string()).starts_with("setting `server.port` (flag --port): "),
            "{error}"
        );
        let error = load("nonsense", &[], vec![]).unwrap_err();
        assert!(error.to_string().ends_with(" is not TOML"), "{error}");
        let missing: Result<Settings<Sample>, _> =
            Settings::of_layers(Some(Path::new("/nowhere.toml")), said(&[]), vec![], &[]);
        assert!(missing.unwrap_err().to_string().contains("/nowhere.toml"));
    }

    #[test]
    fn open_tables_take_any_key_and_secrets_are_masked() {
        let file = "secret = \"hush\"\n[server.headers]\nx-key = \"abc\"";
        let settings = load(file, &[], vec![]).unwrap();
        assert_eq!(settings.values.server.headers["x-key"], "abc");
        let printed = settings.print(|key| key == "secret" || key.starts_with("server.headers"));
        assert!(
            !printed.contains("hush") && !printed.contains("abc"),
            "{printed}"
        );
        assert!(printed.contains("secret = \"(secret)\""), "{printed}");
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let file = "model = \"a\\\"b\\n\\u0001\"\n[server]\nport = 5\ngrace_seconds = 1e9";
        let settings = load(file, &[], vec![]).unwrap();
        let again = load(&settings.print(|_| false), &[], vec![]).unwrap();
        assert_eq!(again.values, settings.values);
    }
}
