use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{BuildInfo, OtlpConfig};
use crate::error::Error;

/// The running exporter: a thread of the OpenTelemetry SDK that sends spans in batches.
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
    timeout: Duration,
}

impl Exporter {
    pub(crate) fn start(
        endpoint: &str,
        config: &OtlpConfig,
        build: &BuildInfo,
    ) -> Result<Self, Error> {
        check_endpoint(endpoint)?;
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(Error::OtlpSetting {
                setting: "sample_ratio",
                reason: "is not between 0 and 1",
            });
        }
        let timeout = Duration::try_from_secs_f64(config.timeout_seconds)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or(Error::OtlpSetting {
                setting: "timeout_seconds",
                reason: "is not a time above 0",
            })?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(timeout)
            .with_headers(config.headers.clone().into_iter().collect())
            .with_http_client(BlockingClient::new(timeout))
            .build()
            .map_err(Error::OtlpExporter)?;
        let resource = Resource::builder()
            .with_service_name(build.service)
            .with_attribute(KeyValue::new("service.version", build.version))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                config.sample_ratio,
            ))))
            .with_resource(resource)
            .build();
        Ok(Self { provider, timeout })
    }

    /// The layer that turns spans of level `INFO` and above into exported ones, whatever the log
    /// shows.
    pub(crate) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("forebay"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(LevelFilter::INFO)
            .boxed()
    }

    /// Sends what is left and ends the thread; blocks for the configured timeout at most, or for
    /// the SDK's 5 s if that is longer.
    pub(crate) fn shutdown(&self) -> Result<(), Error> {
        let begun = Instant::now();
        // The SDK's own shutdown exports too, but does not say whether that worked.
        let flushed = self.provider.force_flush();
        let left = self.timeout.saturating_sub(begun.elapsed());
        let ended = self.provider.shutdown_with_timeout(left);
        flushed.and(ended).map_err(Error::OtlpFlush)
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), Error> {
    let invalid = |reason| Error::OtlpSetting {
        setting: "endpoint",
        reason,
    };
    let uri: Uri = endpoint.parse().map_err(|_| invalid("is not a URL"))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(invalid("has no host"));
    }
    match uri.scheme_str() {
        Some("http") => Ok(()),
        Some("https") if cfg!(feature = "otlp-tls") => Ok(()),
        Some("https") => Err(Error::OtlpUnsupported {
            feature: "otlp-tls",
        }),
        _ => Err(invalid("is not an `http` or `https` URL")),
    }
}

/// An HTTP client that blocks: the exporter calls it from its own thread only, so it needs no
/// async runtime, and the last spans can leave after the runtime is gone.
struct BlockingClient(ureq::Agent);

impl BlockingClient {
    fn new(timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            // The exporter decides by status what to send again.
            .http_status_as_error(false)
            .max_redirects(0);
        #[cfg(feature = "otlp-tls")]
        let config = config.tls_config(
            ureq::tls::TlsConfig::builder()
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        );
        Self(config.build().new_agent())
    }
}

impl fmt::Debug for BlockingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockingClient")
    }
}

#[async_trait]
impl HttpClient for BlockingClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.as_ref()))?;
        let (parts, mut body) = response.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_starts() {
        let reason = |endpoint| match check_endpoint(endpoint) {
            Err(Error::OtlpSetting { reason, .. }) => reason,
            other => panic!("{endpoint}: {other:?}"),
        };
        assert!(check_endpoint("http://127.0.0.1:4318/").is_ok());
        assert!(check_endpoint("http://[::1]:4318/prefix").is_ok());
        assert_eq!(reason("http://a b"), "is not a URL");
        assert_eq!(reason("/v1/traces"), "has no host");
        assert_eq!(
            reason("grpc://host:4317"),
            "is not an `http` or `https` URL"
        );
        let https = check_endpoint("https://host");
        assert_eq!(https.is_ok(), cfg!(feature = "otlp-tls"));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let build = BuildInfo {
            service: "test",
            version: "0",
            revision: "",
        };
        let setting = |config: &OtlpConfig| match Exporter::start("http://h", config, &build) {
            Err(Error::OtlpSetting { setting, .. }) => setting,
            _ => "accepted",
        };
        for sample_ratio in [-0.1, 1.1, f64::NAN] {
            let config = OtlpConfig {
                sample_ratio,
                ..OtlpConfig::default()
            };
            assert_eq!(setting(&config), "sample_ratio");
        }
        for timeout_seconds in [0.0, -1.0, f64::INFINITY] {
            let config = OtlpConfig {
                timeout_seconds,
                ..OtlpConfig::default()
            };
            assert_eq!(setting(&config), "timeout_seconds");
        }
    }
}
