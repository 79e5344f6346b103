//! What is measured: the planes, and what they are compared with.

mod forebay;
mod grpc;
mod raw_nats;
mod raw_tcp;

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use forebay_testkit::{Child, NatsServer};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Long enough for any start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of something that answers.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Opens a stream; frames come until it ends. Errors panic: a bench has none.
    fn open(&self, first: Bytes) -> BoxStream<'static, Bytes>;
}

/// What can be measured of a carrier beside round trips.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One frame after the other.
    Echo,
    /// Streams, many at a time.
    Streams,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether it needs a NATS server.
    pub(crate) nats: bool,
}

/// The planes, each after its limit.
pub(crate) const ROWS: &[Row] = &[
    row("in-process", Kind::Streams, false),
    row("raw TCP", Kind::Echo, false),
    row("raw gRPC", Kind::Streams, false),
    row("TCP", Kind::Streams, false),
    row("raw NATS", Kind::Echo, true),
    row("NATS", Kind::Streams, true),
];

const fn row(name: &'static str, kind: Kind, nats: bool) -> Row {
    Row { name, kind, nats }
}

/// A client, and the processes behind it.
pub(crate) struct Connected {
    pub(crate) carrier: Box<dyn Carrier>,
    /// `None`: the server is this process.
    pub(crate) server: Option<Child>,
    _nats: Option<NatsServer>,
}

/// Starts what a row needs, and connects.
pub(crate) async fn connect(row: &Row) -> Connected {
    if row.name == "in-process" {
        return Connected {
            carrier: forebay::in_process().await,
            server: None,
            _nats: None,
        };
    }
    let nats = row.nats.then(NatsServer::start);
    let service = nats.as_ref().map_or_else(String::new, NatsServer::url);
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--serve", row.name, &service]);
    let server = Child::spawn(&command).expect("this program starts again");
    let address = server.wait_line(PATIENCE, |line| {
        line.strip_prefix("address ").map(str::to_owned)
    });
    let client: BoxFuture<'_, Box<dyn Carrier>> = match row.name {
        "raw TCP" => Box::pin(raw_tcp::connect(&address)),
        "raw gRPC" => Box::pin(grpc::connect(&address)),
        "raw NATS" => Box::pin(raw_nats::connect(&service)),
        name => Box::pin(forebay::connect(name, &service, &address)),
    };
    Connected {
        carrier: client.await,
        server: Some(server),
        _nats: nats,
    }
}

/// Serves a row until the process is killed.
pub(crate) async fn serve(name: &str, service: &str) {
    match name {
        "raw TCP" => raw_tcp::serve().await,
        "raw gRPC" => grpc::serve().await,
        "raw NATS" => raw_nats::serve(service).await,
        name => forebay::serve(name, service).await,
    }
}
