/// Why telemetry could not be set up, or could not be delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log filter is not a list of `target=level` directives.
    #[error("the log filter {filter:?} is not valid")]
    LogFilter {
        /// The filter as configured.
        filter: String,
        /// What the parser says about it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A setting of the OTLP exporter is not usable.
    #[error("the otlp setting `{setting}` {reason}")]
    OtlpSetting {
        /// The setting's name in [`OtlpConfig`](crate::OtlpConfig).
        setting: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// An OTLP endpoint is configured, but this build has no exporter.
    #[error("this build cannot export traces: it lacks the cargo feature `{feature}`")]
    OtlpUnsupported {
        /// The feature that adds what is missing.
        feature: &'static str,
    },
    /// The OTLP exporter could not be built.
    #[cfg(feature = "otlp")]
    #[error("the otlp exporter could not be built")]
    OtlpExporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The last spans did not reach the collector.
    #[cfg(feature = "otlp")]
    #[error("the last spans could not be exported")]
    OtlpFlush(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// The process already has a global subscriber.
    #[error("logging is already set up in this process")]
    AlreadyInstalled,
}
