use std::fmt;
use std::net::SocketAddr;

use forebay_runtime::PlanesConfig;
use forebay_runtime::command::{Surface, guard};

use crate::WorkerHandle;
use crate::status::StatusServer;

/// What the user sees when the workers are registered: what they serve, and what is open.
pub(super) struct Banner<'a> {
    pub(super) version: &'a str,
    /// At least one.
    pub(super) workers: &'a [WorkerHandle],
    /// Of which kind their engines are.
    pub(super) engine: &'a str,
    pub(super) namespace: &'a str,
    pub(super) planes: &'a PlanesConfig,
    /// Where the planes listen.
    pub(super) listens: Option<SocketAddr>,
    /// Where the status is told.
    pub(super) status: Option<SocketAddr>,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            workers,
            engine,
            namespace,
            planes,
            listens,
            status,
        } = self;
        let card = workers[0].card();
        let engines = match workers.len() {
            1 => format!("1 {engine} engine"),
            count => format!("{count} {engine} engines"),
        };
        writeln!(f, "forebay-worker {version}")?;
        let context_length = card.engine.context_length;
        writeln!(
            f,
            "model      {}, {context_length} tokens of context",
            card.model
        )?;
        writeln!(f, "workers    {engines} in {namespace}")?;
        writeln!(f, "discovery  {}", planes.discovery_in_use())?;
        match listens {
            Some(listens) => writeln!(f, "requests   tcp://{listens}")?,
            None => writeln!(f, "requests   {}", planes.requests)?,
        }
        writeln!(f, "events     {}", planes.events_in_use())?;
        if let Some(status) = status {
            writeln!(f, "status     http://{status}")?;
        }
        writeln!(f, "\nOpen surfaces:")?;
        if listens.is_none() && status.is_none() {
            writeln!(f, "  none")?;
        }
        if let Some(address) = *listens {
            let planes = Surface {
                scheme: "tcp",
                address,
                guard: guard(&planes.tls),
                offers: &["the deployment's requests and events"],
            };
            write!(f, "{planes}")?;
        }
        if let Some(address) = *status {
            let status = Surface {
                scheme: "http",
                address,
                guard: "without authentication",
                offers: &StatusServer::OFFERS,
            };
            write!(f, "{status}")?;
        }
        writeln!(f, "\nCtrl-C drains and stops.")
    }
}
