//! What a log line holds in each form.
#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use forebay_observability::{
    BuildInfo, Colour, Error, LogConfig, LogFormat, Telemetry, TelemetryConfig, request_span,
};
use serde_json::Value;

const BUILD: BuildInfo = BuildInfo {
    service: "test",
    version: "0",
    revision: "",
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged by a request that a nested span and a warning belong to.
fn logged(log: LogConfig) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let config = TelemetryConfig {
        log,
        ..TelemetryConfig::default()
    };
    let (dispatch, telemetry) =
        Telemetry::dispatch(&config, &BUILD, move || writer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let _request = request_span("req-7").entered();
        let _prefill = tracing::info_span!("prefill", chunk = 2).entered();
        tracing::info!(prompt_tokens = 42, "prefill done");
        tracing::warn!("queue is full");
    });
    telemetry.shutdown().unwrap();
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn log(format: LogFormat, filter: &str) -> LogConfig {
    LogConfig {
        format,
        filter: filter.into(),
        ..LogConfig::default()
    }
}

#[test]
fn every_line_of_a_request_carries_its_id() {
    for format in [LogFormat::Compact, LogFormat::Json] {
        let text = logged(log(format, "info"));
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            assert!(line.contains("req-7"), "{line}");
        }
    }
    let text = logged(log(LogFormat::Pretty, "info"));
    assert_eq!(text.matches("req-7").count(), 2, "{text}");
}

#[test]
fn a_strict_filter_still_shows_whose_warning_it_is() {
    let text = logged(log(LogFormat::Compact, "warn"));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("queue is full") && text.contains("req-7"));
}

#[test]
fn json_has_the_fields_at_the_top_and_the_spans_from_the_outermost_in() {
    let text = logged(log(LogFormat::Json, "info"));
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "prefill done");
    assert_eq!(line["prompt_tokens"], 42);
    assert_eq!(line["spans"][0]["name"], "request");
    assert_eq!(line["spans"][0]["request_id"], "req-7");
    assert_eq!(line["spans"][1]["name"], "prefill");
    assert_eq!(line["spans"][1]["chunk"], 2);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_is_free_of_what_only_the_exporter_reads() {
    for format in [LogFormat::Compact, LogFormat::Pretty] {
        let text = logged(log(format, "info"));
        assert!(!text.contains("otel."), "{text}");
    }
}

#[test]
fn colour_is_a_choice() {
    let with = |colour| {
        logged(LogConfig {
            colour,
            ..LogConfig::default()
        })
    };
    assert!(with(Colour::Always).contains('\u{1b}'));
    assert!(!with(Colour::Never).contains('\u{1b}'));
    assert!(!with(Colour::Auto).contains('\u{1b}'));
}

#[test]
fn a_bad_filter_is_an_error_that_shows_it() {
    let config = TelemetryConfig {
        log: log(LogFormat::Compact, "info,forebay=loud"),
        ..TelemetryConfig::default()
    };
    let error = Telemetry::dispatch(&config, &BUILD, io::sink).unwrap_err();
    assert!(matches!(error, Error::LogFilter { .. }));
    assert!(error.to_string().contains("forebay=loud"), "{error}");
}
