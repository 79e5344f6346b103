use std::io;

use futures::Stream;
use tokio::signal::unix::{SignalKind, signal};

/// A request from outside to end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: Ctrl-C on a terminal.
    Interrupt,
    /// SIGTERM: from `kill`, an init system or Kubernetes.
    Terminate,
}

impl Signal {
    /// The signal's usual name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code of a process that this signal ended: 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The signals that this process gets from now on, one item for each.
///
/// From this call on they no longer end the process by themselves, for its whole life.
///
/// # Errors
///
/// If the handlers cannot be installed.
pub fn signals() -> io::Result<impl Stream<Item = Signal> + Send + Unpin> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(futures::stream::poll_fn(move |cx| {
        if interrupt.poll_recv(cx).is_ready() {
            return std::task::Poll::Ready(Some(Signal::Interrupt));
        }
        terminate
            .poll_recv(cx)
            .map(|received| received.map(|()| Signal::Terminate))
    }))
}
