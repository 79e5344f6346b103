use std::fmt;
use std::net::{IpAddr, SocketAddr};

use forebay_runtime::PlanesConfig;

/// What the user sees when the frontend listens: where, for which deployment, and what is open.
pub(super) struct Banner<'a> {
    pub(super) version: &'a str,
    pub(super) namespace: &'a str,
    /// How a worker is chosen.
    pub(super) router_mode: String,
    /// Whether other frontends are told of what was sent where.
    pub(super) shares_bookings: bool,
    pub(super) planes: &'a PlanesConfig,
    /// Where the planes listen.
    pub(super) listens: Option<SocketAddr>,
    /// Where clients are served.
    pub(super) address: SocketAddr,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            namespace,
            router_mode,
            planes,
            listens,
            address,
            ..
        } = self;
        let others = match self.shares_bookings {
            true => "known to the other frontends",
            false => "of this frontend alone",
        };
        let reach_of_clients = reach(address.ip());
        writeln!(
            f,
            r#"forebay-frontend {version}
models     those of the workers in {namespace}, as they come and go
workers    chosen by {router_mode}, with bookings {others}
discovery  {discovery}
requests   {requests}
events     {events}
address    http://{address}

See what is served:
  curl http://{address}/v1/models

Open surfaces:
  http://{address} ({reach_of_clients}, without authentication)
    POST /v1/chat/completions  /v1/completions
    GET  /v1/models  /health  /live  /ready  /metrics  /openapi.json"#,
            discovery = planes.discovery_in_use(),
            requests = planes.requests,
            events = planes.events_in_use(),
        )?;
        if let Some(listens) = listens {
            let guard = match (planes.tls.is_on(), planes.tls.ca.is_some()) {
                (false, _) => "without TLS",
                (true, false) => "TLS",
                (true, true) => "mutual TLS",
            };
            let reach = reach(listens.ip());
            writeln!(f, "  tcp://{listens} ({reach}, {guard})")?;
            writeln!(f, "    the deployment's other frontends")?;
        }
        writeln!(f, "\nCtrl-C drains and stops.")
    }
}

fn reach(ip: IpAddr) -> &'static str {
    match ip {
        ip if ip.is_loopback() => "this machine only",
        ip if ip.is_unspecified() => "every network of this machine",
        _ => "the network of this address",
    }
}
