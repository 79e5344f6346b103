use std::fmt;
use std::io::{self, IsTerminal};

use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{BuildInfo, TelemetryConfig};
use crate::error::Error;
use crate::logs;
#[cfg(feature = "otlp")]
use crate::otlp::Exporter;

/// The process's log and trace export; keep it until the end of `main` and shut it down there,
/// when everything that logs has ended.
///
/// Dropping it without [`Telemetry::shutdown`] also tries to deliver the last spans, and cannot
/// say whether that worked.
#[must_use = "dropping it ends the export of traces"]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Sets up logging to the standard error stream and, if an endpoint is configured, the export
    /// of traces, for the whole process.
    ///
    /// Lines are written by the thread that logs.
    ///
    /// # Errors
    ///
    /// A setting that is not usable, by name, or [`Error::AlreadyInstalled`].
    pub fn install(config: &TelemetryConfig, build: &BuildInfo) -> Result<Self, Error> {
        let colour = config.log.colour.applies_to(io::stderr().is_terminal());
        let (dispatch, telemetry) = Self::build(config, build, colour, io::stderr)?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| Error::AlreadyInstalled)?;
        Ok(telemetry)
    }

    /// The same as a [`Dispatch`] of the caller's, with lines to `writer`: for an application with
    /// a subscriber of its own, and for tests.
    ///
    /// # Errors
    ///
    /// A setting that is not usable, by name.
    pub fn dispatch<W>(
        config: &TelemetryConfig,
        build: &BuildInfo,
        writer: W,
    ) -> Result<(Dispatch, Self), Error>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let colour = config.log.colour.applies_to(false);
        Self::build(config, build, colour, writer)
    }

    #[cfg(feature = "otlp")]
    fn build<W>(
        config: &TelemetryConfig,
        build: &BuildInfo,
        colour: bool,
        writer: W,
    ) -> Result<(Dispatch, Self), Error>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let log = logs::layer(&config.log, colour, writer)?;
        let exporter = match &config.otlp.endpoint {
            Some(endpoint) => Some(Exporter::start(endpoint, &config.otlp, build)?),
            None => None,
        };
        let subscriber = tracing_subscriber::registry()
            .with(log)
            .with(exporter.as_ref().map(Exporter::layer));
        Ok((Dispatch::new(subscriber), Self { exporter }))
    }

    #[cfg(not(feature = "otlp"))]
    fn build<W>(
        config: &TelemetryConfig,
        _: &BuildInfo,
        colour: bool,
        writer: W,
    ) -> Result<(Dispatch, Self), Error>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        if config.otlp.endpoint.is_some() {
            return Err(Error::OtlpUnsupported { feature: "otlp" });
        }
        let log = logs::layer(&config.log, colour, writer)?;
        let subscriber = tracing_subscriber::registry().with(log);
        Ok((Dispatch::new(subscriber), Self {}))
    }

    /// Delivers the last spans and ends the export; logging goes on.
    ///
    /// Blocks, at most for the longer of 5 s and
    /// [`OtlpConfig::timeout_seconds`](crate::OtlpConfig::timeout_seconds), and needs no async
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`Error::OtlpFlush`] if the spans did not reach the collector.
    pub fn shutdown(self) -> Result<(), Error> {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            return exporter.shutdown();
        }
        Ok(())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
