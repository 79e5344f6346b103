use std::fmt;
use std::net::SocketAddr;

use forebay_runtime::PlanesConfig;
use forebay_runtime::command::{Surface, guard};

use super::client_surface;

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
        let clients = client_surface(*address);
        write!(
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
{clients}"#,
            discovery = planes.discovery_in_use(),
            requests = planes.requests,
            events = planes.events_in_use(),
        )?;
        if let Some(address) = *listens {
            let planes = Surface {
                scheme: "tcp",
                address,
                guard: guard(&planes.tls),
                offers: &["the deployment's other frontends"],
            };
            write!(f, "{planes}")?;
        }
        writeln!(f, "\nCtrl-C drains and stops.")
    }
}
