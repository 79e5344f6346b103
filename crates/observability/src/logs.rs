use std::fmt;

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogConfig, LogFormat};
use crate::error::Error;

/// The layer that writes log lines in the configured form.
/// Dependencies that say at `info` what is said here, or what every attempt to connect comes to. A
/// filter that names them has the last word.
const CHATTY: &str = "async_nats=warn";

pub(crate) fn layer<S, W>(
    config: &LogConfig,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Layer<S> + Send + Sync>, Error>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(format!("{CHATTY},{}", config.filter))
        .map_err(|source| Error::LogFilter {
            filter: config.filter.clone(),
            source,
        })?;
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        .fmt_fields(TextFields);
    Ok(match config.format {
        LogFormat::Compact => text
            .with_writer(writer)
            .compact()
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => text
            .pretty()
            .with_writer(writer)
            .fmt_fields(TextFields)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
    })
}

/// The default form of fields in text, without those that only tell the trace exporter how to
/// present a span (`otel.kind` and its like).
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = WithoutOtel(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct WithoutOtel<'a>(DefaultVisitor<'a>);

impl WithoutOtel<'_> {
    fn is_shown(field: &Field) -> bool {
        !field.name().starts_with("otel.")
    }
}

impl Visit for WithoutOtel<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if Self::is_shown(field) {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if Self::is_shown(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }
}
