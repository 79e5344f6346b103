//! Layers of settings: defaults, then a file, then the environment, then flags; the last that says
//! something about a key wins, and which one it was is kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A component's settings and where each came from.
#[derive(Debug)]
pub(crate) struct Settings<T> {
    pub(crate) values: T,
    leaves: Vec<Leaf>,
}

/// One setting, as it came out of the layers.
#[derive(Debug)]
struct Leaf {
    key: String,
    value: Value,
    origin: String,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A key that no setting has.
    #[error("unknown setting `{key}` ({origin}){}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        key: String,
        origin: String,
        nearest: Option<String>,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A value of the wrong kind.
    #[error("setting `{key}` ({origin}): {problem}")]
    Value {
        key: String,
        origin: String,
        problem: Box<figment::error::Kind>,
    },
    /// A file that is not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        path: PathBuf,
        source: Box<figment::Error>,
    },
    /// Whatever else keeps the layers from being put together.
    #[error(transparent)]
    Layers(Box<figment::Error>),
}

impl From<figment::Error> for SettingsError {
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

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flag {
    /// As the user wrote it, such as `--port`.
    pub(crate) name: String,
    /// The setting's key, such as `frontend.port`.
    pub(crate) key: String,
    pub(crate) value: Value,
}

impl Flag {
    pub(crate) fn new(name: &str, key: &str, value: impl Into<Value>) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.into(),
        }
    }

    /// Reads `key=value` as `--set` takes it: the value as in TOML, or a bare text.
    pub(crate) fn parse_set(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value: Value = value.parse().unwrap_or_else(|never| match never {});
                Ok(Self::new("--set", key.trim(), value))
            }
            _ => Err("expected KEY=VALUE, such as frontend.port=9000".into()),
        }
    }
}

/// One layer with a name.
struct Layer {
    metadata: Metadata,
    dict: Dict,
}

impl Layer {
    fn defaults<T: Serialize>(values: T) -> Result<Self, SettingsError> {
        let value = Value::serialize(values)?;
        Ok(Self {
            metadata: Metadata::named("default"),
            dict: value.into_dict().unwrap_or_default(),
        })
    }

    fn flag(flag: Flag) -> Self {
        let value = figment::util::nest(&flag.key, flag.value);
        Self {
            metadata: Metadata::named(format!("flag {}", flag.name)),
            dict: value.into_dict().unwrap_or_default(),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// The environment variables of a component: `FOREBAY_<COMPONENT>__<KEY>`, with `__` for the dots
/// of a key.
pub(crate) fn environment(component: &str) -> Env {
    Env::prefixed(&format!("FOREBAY_{}__", component.to_uppercase())).split("__")
}

impl<T: Serialize + DeserializeOwned + Default> Settings<T> {
    /// Reads the layers. `open` are the keys of tables whose entries the user names, such as HTTP
    /// headers.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Provider,
        flags: Vec<Flag>,
        open: &[&str],
    ) -> Result<Self, SettingsError> {
        let mut layers = Figment::from(Layer::defaults(T::default())?);
        let known: Vec<String> = leaves(&layers)?.into_iter().map(|leaf| leaf.key).collect();
        if let Some(file) = file {
            // Looked at first: what figment says of a missing file does not name it.
            std::fs::metadata(file).map_err(|source| SettingsError::File {
                path: file.to_owned(),
                source,
            })?;
            layers = layers.merge(Toml::file_exact(file));
            layers.data().map_err(|source| SettingsError::Syntax {
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
                return Err(SettingsError::Unknown {
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
    pub(crate) fn print(&self, is_secret: impl Fn(&str) -> bool) -> String {
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

/// Every value of the merged layers, in order of key.
fn leaves(layers: &Figment) -> Result<Vec<Leaf>, SettingsError> {
    fn walk(layers: &Figment, prefix: &str, dict: &Dict, leaves: &mut Vec<Leaf>) {
        for (name, value) in dict {
            let key = match prefix {
                "" => name.clone(),
                prefix => format!("{prefix}.{name}"),
            };
            match value {
                Value::Dict(_, dict) if !dict.is_empty() => walk(layers, &key, dict, leaves),
                value => leaves.push(Leaf {
                    origin: origin(layers.get_metadata(value.tag()), &key),
                    key,
                    value: value.clone(),
                }),
            }
        }
    }
    let data = layers.data()?;
    let mut leaves = Vec::new();
    if let Some(dict) = data.get(&Profile::Default) {
        walk(layers, "", dict, &mut leaves);
    }
    Ok(leaves)
}

fn origin(metadata: Option<&Metadata>, key: &str) -> String {
    let Some(metadata) = metadata else {
        return "default".into();
    };
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("file {}", path.display()),
        // Figment names this layer "`PREFIX` environment variable(s)".
        _ if metadata.name.contains("environment") => {
            let prefix = metadata.name.split('`').nth(1).unwrap_or_default();
            let variable = key.to_uppercase().replace('.', "__");
            format!("environment {prefix}{variable}")
        }
        _ => metadata.name.to_string(),
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

/// A value in TOML's spelling; `None` for one that is not set.
fn toml(value: &Value) -> Option<String> {
    Some(match value {
        Value::Empty(..) => return None,
        // A JSON string is a TOML basic string.
        Value::String(_, text) => serde_json::to_string(text).expect("a text is JSON"),
        Value::Char(_, c) => serde_json::to_string(c).expect("a text is JSON"),
        Value::Bool(_, on) => on.to_string(),
        Value::Num(_, number) => match number.to_f64() {
            Some(number) => format!("{number:?}"),
            None => number
                .to_i128()
                .map(|number| number.to_string())
                .or_else(|| number.to_u128().map(|number| number.to_string()))
                .expect("a number is real or whole"),
        },
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().filter_map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(_, dict) => {
            let items: Vec<String> = dict
                .iter()
                .filter_map(|(key, value)| Some(format!("{key} = {}", toml(value)?)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
    fn environment(pairs: &[(&str, &str)]) -> Layer {
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
    ) -> Result<Settings<Sample>, SettingsError> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path, file.as_bytes()).unwrap();
        let environment = environment(pairs);
        Settings::load(Some(path.path()), environment, flags, &["server.headers"])
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
        let missing: Result<Settings<Sample>, _> = Settings::load(
            Some(Path::new("/nowhere.toml")),
            environment(&[]),
            vec![],
            &[],
        );
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

    #[test]
    fn set_takes_a_key_and_a_value() {
        let flag = Flag::parse_set("a.b=1=2").unwrap();
        assert_eq!((&*flag.key, flag.value.as_str()), ("a.b", Some("1=2")));
        assert!(Flag::parse_set("nothing").is_err());
        assert!(Flag::parse_set("=1").is_err());
    }
}
