use figment::value::Value;

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// As the user wrote it, such as `--port`.
    pub name: String,
    /// The setting's key, such as `frontend.port`.
    pub key: String,
    /// What it is set to.
    pub value: Value,
}

impl Flag {
    /// A flag of its own for a setting.
    pub fn new(name: &str, key: &str, value: impl Into<Value>) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.into(),
        }
    }

    /// The same for a flag that may not have been given.
    pub fn given(name: &str, key: &str, value: Option<impl Into<Value>>) -> Option<Self> {
        value.map(|value| Self::new(name, key, value))
    }

    /// Reads `key=value` as `--set` takes it: the value as in TOML, or a bare text.
    ///
    /// # Errors
    ///
    /// What was expected, if it is something else.
    pub fn parse_set(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value: Value = value.parse().unwrap_or_else(|never| match never {});
                Ok(Self::new("--set", key.trim(), value))
            }
            _ => Err("expected KEY=VALUE, such as frontend.port=9000".into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn set_takes_a_key_and_a_value() {
        let flag = Flag::parse_set("a.b=1=2").unwrap();
        assert_eq!((&*flag.key, flag.value.as_str()), ("a.b", Some("1=2")));
        assert!(Flag::parse_set("nothing").is_err());
        assert!(Flag::parse_set("=1").is_err());
    }
}
