use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Profile, Provider as _};

use crate::Error;

/// One setting, as it came out of the layers.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: String,
}

/// Every value of the merged layers, in order of key.
pub(crate) fn leaves(layers: &Figment) -> Result<Vec<Leaf>, Error> {
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

/// Where a value came from.
pub(crate) fn origin(metadata: Option<&Metadata>, key: &str) -> String {
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

/// A value in TOML's spelling; `None` for one that is not set.
pub(crate) fn toml(value: &Value) -> Option<String> {
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
