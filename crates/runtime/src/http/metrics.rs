use forebay_observability::{Counter, EncodeLabelSet, Family, Gauge, Registry};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One of the two had said that this request is the last, or the client closed in between.
    Finished,
    /// The server closes.
    Closing,
    /// Another client waited for a place.
    MadeRoom,
    /// It was idle for too long.
    Idle,
    /// A head did not come to its end in time.
    HeaderTimeout,
    /// The client took nothing for too long.
    WriteTimeout,
    /// What came was no request.
    Malformed,
    /// The client was gone in the middle.
    Lost,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Closing => "closing",
            Self::MadeRoom => "made_room",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Malformed => "malformed",
            Self::Lost => "lost",
        }
    }
}

/// The metrics of connections, under the name of what serves them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionMetrics {
    open: Gauge,
    ended: Family<EndLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    end: &'static str,
}

impl ConnectionMetrics {
    pub(super) fn new(component: &str, limit: usize, registry: &Registry) -> Self {
        let registry = registry.component(component);
        registry
            .gauge("connections_limit", "How many connections may be open")
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        Self {
            open: registry.gauge("connections", "Open connections"),
            ended: registry.family("connections_ended", "Connections that ended, by why"),
        }
    }

    /// A connection that is open until the guard is dropped.
    pub(super) fn open(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    pub(super) fn ended(&self, end: End) {
        let labels = EndLabels { end: end.as_str() };
        self.ended.get_or_create_owned(&labels).inc();
    }
}

/// Counts a connection while it is open.
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
