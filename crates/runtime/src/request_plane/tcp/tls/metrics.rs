use std::time::Duration;

use forebay_observability::{EncodeLabelSet, Family, Gauge, Registry};

use super::ends::Ends;

/// `forebay_tcp_certificate_*`.
pub(super) struct Metrics {
    expiry: Family<Labels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    certificate: &'static str,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            expiry: registry.component("tcp").family(
                "certificate_expiry_timestamp_seconds",
                "When a certificate in use expires, since the Unix epoch: own, the first of this \
                    process's chain; ca, the last of the authorities",
            ),
        }
    }

    /// When what is in use now expires.
    pub(super) fn tell(&self, ends: &Ends) {
        self.expires("own", ends.own_expiry);
        self.expires("ca", ends.ca_expiry);
    }

    /// It does then; none, if nobody knows.
    fn expires(&self, certificate: &'static str, at: Option<Duration>) {
        let labels = Labels { certificate };
        match at.and_then(|at| i64::try_from(at.as_secs()).ok()) {
            Some(seconds) => {
                self.expiry.get_or_create(&labels).set(seconds);
            }
            None => {
                self.expiry.remove(&labels);
            }
        }
    }
}
