use forebay_mux::session::LostCause;
use forebay_observability::{Counter, EncodeLabelSet, Family, Gauge, Registry};

/// What one side of a plane does: `forebay_<plane>_client_*` or `forebay_<plane>_server_*`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) unread_chunks: Gauge,
    pub(crate) part_bytes: Gauge,
    pub(crate) reattachments: Counter,
    pub(crate) refused: Counter,
    #[cfg(feature = "tcp")]
    pub(crate) accept_failures: Counter,
    pub(crate) slow_polls: Counter,
    pub(crate) credit_stalls: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    lost: Family<LostLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LostLabels {
    cause: &'static str,
}

impl Metrics {
    /// Those of the clients' side of a plane.
    pub(crate) fn client(plane: &str, registry: &Registry) -> Self {
        Self::new(&registry.component(plane).component("client"))
    }

    /// Those of the servers' side of a plane.
    pub(crate) fn server(plane: &str, registry: &Registry) -> Self {
        Self::new(&registry.component(plane).component("server"))
    }

    fn new(registry: &Registry) -> Self {
        Self {
            connections: registry.gauge("connections", "Connections that are open"),
            sessions: registry.gauge(
                "sessions",
                "Sessions with other processes, with and without a connection at the moment",
            ),
            streams: registry.gauge("streams", "Streams that are open"),
            unread_chunks: registry.gauge(
                "unread_chunks",
                "Parts of frames that have come and that nobody has taken yet",
            ),
            part_bytes: registry.gauge(
                "part_bytes",
                "Bytes of frames that have been taken in part and have not come whole",
            ),
            reattachments: registry.counter(
                "reattachments",
                "Sessions that went on over a new connection after theirs was cut",
            ),
            refused: registry.counter(
                "refused",
                "Connections that did not become a session: too many, or no proper handshake",
            ),
            #[cfg(feature = "tcp")]
            accept_failures: registry.counter(
                "accept_failures",
                "Attempts to accept a connection that failed, mostly for lack of descriptors",
            ),
            slow_polls: registry.counter(
                "slow_polls",
                "Times that a client's answers took over 50 ms at one go, which holds up its heartbeats",
            ),
            credit_stalls: registry.counter(
                "credit_stalls",
                "Frames after which their stream had to wait for its reader",
            ),
            sent_bytes: registry.counter("sent_bytes", "Bytes sent, with the headers of frames"),
            received_bytes: registry.counter(
                "received_bytes",
                "Bytes received, with the headers of frames",
            ),
            lost: registry.family("lost", "Sessions that ended, and why"),
        }
    }

    pub(crate) fn lost(&self, cause: LostCause) {
        let cause = match cause {
            LostCause::Silent => "silent",
            LostCause::Grace => "grace",
            LostCause::Unreachable => "unreachable",
            LostCause::Refused(_) => "refused",
            LostCause::Closed => "closed",
            LostCause::Protocol(_) => "protocol",
            _ => "other",
        };
        self.lost.get_or_create(&LostLabels { cause }).inc();
    }
}
