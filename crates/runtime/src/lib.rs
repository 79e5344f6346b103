#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cause;
#[cfg(feature = "command")]
pub mod command;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod discovery;
mod event_plane;
mod health;
#[cfg(feature = "http")]
pub mod http;
mod metrics;
mod names;
#[cfg(feature = "nats")]
mod nats;
mod outcome;
mod planes;
mod random;
mod request_plane;
mod scope;
mod shutdown;
mod signal;
mod tasks;

pub use cause::CancelCause;
pub use config::{ConfigError, ShutdownConfig};
pub use context::Context;
pub use discovery::{
    Discovery, DownCause, FileConfig, FileDiscovery, Instance, InstanceEvent, MemberEvent,
    MemoryDiscovery, Registration, Watch, members,
};
#[cfg(feature = "etcd")]
pub use discovery::{EtcdDiscovery, EtcdDiscoveryConfig};
pub use event_plane::{Event, EventPlane, EventStream, InProcessEvents, Lagged, Publisher, Stamp};
pub use health::{
    Condition, ConditionReport, Degradation, DegradationReport, Health, HealthReport,
};
pub use names::{EndpointId, InvalidName, Topic};
#[cfg(feature = "nats")]
pub use nats::{NatsConfig, NatsConnection, NatsEvents, NatsPlane, NatsPlaneConfig};
pub use outcome::{Outcome, TaskEnd};
pub use planes::{
    ConnectError, DiscoveryChoice, EtcdConfig, EventsChoice, InvalidChoice, NatsAuthConfig,
    PeerTlsConfig, PlaneError, Planes, PlanesConfig, RequestsChoice, Secret, TlsConfig,
};
#[cfg(feature = "tcp")]
pub use request_plane::{BindError, TcpConfig, TcpPlane, TlsError};
pub use request_plane::{
    InProcessPlane, PeerState, PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler,
    StreamRequest, worker_lost, worker_stopped, worker_unreachable,
};
pub use scope::{CancelScope, KillGuard};
pub use shutdown::{Shutdown, ShutdownCause, ShutdownReport};
pub use signal::{Signal, signals};
pub use tasks::{BlockingError, RunningTask, TaskHandle, TaskKind, Tasks};
