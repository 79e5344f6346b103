use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use forebay_runtime::{PlanesConfig, RequestsChoice};

use crate::WorkerHandle;

/// What the user sees when the workers are registered: what they serve, and what is open.
pub(super) struct Banner<'a> {
    pub(super) version: &'a str,
    /// At least one.
    pub(super) workers: &'a [WorkerHandle],
    /// Of which kind their engines are.
    pub(super) engine: &'a str,
    pub(super) namespace: &'a str,
    pub(super) planes: &'a PlanesConfig,
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
        writeln!(f, "discovery  {}", planes.discovery)?;
        writeln!(f, "requests   {}", planes.requests)?;
        writeln!(f, "events     {}", planes.events)?;
        writeln!(f, "\nOpen surfaces:")?;
        let listeners: BTreeSet<_> = match planes.requests {
            RequestsChoice::Tcp => workers.iter().filter_map(listener).collect(),
            _ => BTreeSet::new(),
        };
        if listeners.is_empty() && status.is_none() {
            writeln!(f, "  none")?;
        }
        let guard = match (planes.tls.is_on(), planes.tls.ca.is_some()) {
            (false, _) => "without TLS",
            (true, false) => "TLS",
            (true, true) => "mutual TLS",
        };
        for listener in listeners {
            let reach = reach(planes.listen.ip());
            writeln!(
                f,
                "  {listener} ({reach}, {guard})\n    the deployment's requests and events"
            )?;
        }
        if let Some(status) = status {
            let reach = reach(status.ip());
            writeln!(f, "  http://{status} ({reach}, without authentication)")?;
            writeln!(f, "    GET  /health  /live  /ready  /metrics  /metadata")?;
            writeln!(
                f,
                "    POST /engine/pause  /engine/resume  /engine/clear-kv-cache"
            )?;
        }
        writeln!(f, "\nCtrl-C drains and stops.")
    }
}

/// The `tcp://HOST:PORT` of a worker's address.
fn listener(worker: &WorkerHandle) -> Option<String> {
    let address = worker.address()?;
    let rest = address.strip_prefix("tcp://")?;
    let host = rest.split('/').next()?;
    Some(format!("tcp://{host}"))
}

fn reach(ip: IpAddr) -> &'static str {
    match ip {
        ip if ip.is_loopback() => "this machine only",
        ip if ip.is_unspecified() => "every network of this machine",
        _ => "the network of this address",
    }
}
