use std::io;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the server is none.
    #[error("{url:?} is no address of a server: {message}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        message: &'static str,
    },
    /// A setting is out of its range, or does not go with another.
    #[error("{0}")]
    Config(String),
    /// A trace is not in the format.
    #[error("line {line} of the trace: {message}")]
    Trace {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The server cannot be connected to.
    #[error("cannot connect to {authority}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A request that has to succeed before anything is measured did not.
    #[error("{what}: {message}")]
    Probe {
        /// What was asked for.
        what: String,
        /// What came back.
        message: String,
    },
    /// A process whose CPU time was asked for cannot be read.
    #[error("cannot read the CPU time of process {pid}")]
    ServerCpu {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that keeps the schedule cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// It was interrupted before anything was measured.
    #[error("interrupted before the measurement began")]
    Interrupted,
}
