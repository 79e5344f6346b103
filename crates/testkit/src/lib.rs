#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod busy;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod etcd;
#[cfg(target_os = "linux")]
mod fault_proxy;
pub mod http;
pub mod instructions;
mod lossy_nats;
#[cfg(target_os = "linux")]
mod nats;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod reserved_port;
#[cfg(target_os = "linux")]
pub mod usage;

#[cfg(target_os = "linux")]
pub use busy::{Busy, BusyShare};
#[cfg(target_os = "linux")]
pub use child::Child;
#[cfg(target_os = "linux")]
pub use etcd::{Etcd, EtcdBackup, EtcdCluster};
#[cfg(target_os = "linux")]
pub use fault_proxy::{Direction, FaultProxy};
pub use lossy_nats::LossyNats;
#[cfg(target_os = "linux")]
pub use nats::NatsServer;
#[cfg(target_os = "linux")]
pub use reserved_port::ReservedPort;
