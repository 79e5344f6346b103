use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a process tells about itself and to whom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The log on the standard error stream.
    pub log: LogConfig,
    /// The export of traces.
    pub otlp: OtlpConfig,
}

/// How the log looks and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: comma-separated `level`, `target=level` and `target[span{field=value}]=level`
    /// directives as [`EnvFilter`](tracing_subscriber::EnvFilter) reads them; levels are `off`,
    /// `error`, `warn`, `info`, `debug` and `trace`. Default `info`.
    pub filter: String,
    /// The form of a line. Default `compact`.
    pub format: LogFormat,
    /// Whether text forms are coloured. Default `auto`.
    pub colour: Colour,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: LogFormat::default(),
            colour: Colour::default(),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// One line for people: time, level, spans with fields, target, message.
    #[default]
    Compact,
    /// Several indented lines for people: for reading one request closely.
    Pretty,
    /// One JSON object a line for machines: the event's fields at the top, the spans around it
    /// from the outermost in with their fields under `spans`.
    Json,
}

/// Whether the text forms of the log are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Colour {
    /// On a terminal, unless the environment variable `NO_COLOR` is set and not empty
    /// (<https://no-color.org>).
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether to colour a stream that is, or is not, a terminal.
    pub(crate) fn applies_to(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The export of traces over OTLP/HTTP with protobuf bodies
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
///
/// The batching of spans follows the standard `OTEL_BSP_*` environment variables, and
/// `OTEL_RESOURCE_ATTRIBUTES` adds attributes to the resource.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// The collector's base URL, for instance `http://127.0.0.1:4318`; `/v1/traces` is appended.
    /// `https` needs the cargo feature `otlp-tls`. Nothing is exported without it, the default.
    pub endpoint: Option<String>,
    /// Headers sent with each export, for instance an API key. Their values are secret: they are
    /// absent from this type's `Debug` form. Default none.
    pub headers: BTreeMap<String, String>,
    /// The share of traces that are exported, 0.0 to 1.0, where the caller's `traceparent` does
    /// not decide. Default 1.0.
    pub sample_ratio: f64,
    /// How long one export may take with its retries; more than 0. Default 10.
    pub timeout_seconds: f64,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            sample_ratio: 1.0,
            timeout_seconds: 10.0,
        }
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("sample_ratio", &self.sample_ratio)
            .field("timeout_seconds", &self.timeout_seconds)
            .finish()
    }
}

/// What is running: the resource of every exported span and the labels of `forebay_build_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The program, as `service.name`; for instance `forebay`.
    pub service: &'static str,
    /// Its version, as `service.version`.
    pub version: &'static str,
    /// The source revision it was built from; empty when unknown.
    pub revision: &'static str,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_the_debug_form() {
        let config = OtlpConfig {
            headers: [("x-api-key".into(), "s3cret".into())].into(),
            ..OtlpConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(
            shown.contains("x-api-key") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn settings_are_read_with_defaults_and_unknown_ones_are_refused() {
        let config: TelemetryConfig =
            serde_json::from_str(r#"{"log": {"format": "json"}}"#).unwrap();
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.log.filter, "info");
        assert_eq!(config.otlp, OtlpConfig::default());

        let unknown = serde_json::from_str::<TelemetryConfig>(r#"{"log": {"levle": "info"}}"#);
        assert!(unknown.unwrap_err().to_string().contains("levle"));
    }

    #[test]
    fn colour_follows_the_setting() {
        assert!(Colour::Always.applies_to(false));
        assert!(!Colour::Never.applies_to(true));
        assert!(!Colour::Auto.applies_to(false));
    }
}
