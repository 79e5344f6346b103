use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_mux::session::{DetachCause, Hello, Refusal};
use tokio::time::{Instant, Sleep, sleep_until};

use super::serve::Serving;
use super::shared::{SharedSession, Wakers};

/// How long a peer may take to be told that its session is over.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What carries a session's frames while it is attached.
pub(crate) trait Link: Send {
    /// Hands what has come to the session, up to a bound; whether there may be more.
    fn poll_receive(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<bool>;

    /// Sends what the session has, as far as the link takes it.
    fn poll_send(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<()>;

    /// Whether all that was taken from the session is sent, so that there may be more.
    fn is_empty(&self) -> bool;
}

/// What a driver has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    /// The connection was cut, and the session waits for another.
    Cut,
    /// The session is over, and its peer has been told if it took that in time.
    Over,
}

/// Takes a session's bytes to and from its connection, and, at servers, goes on with its answers.
///
/// Reading waits for nobody: what has come is handed to its streams, whose credit bounds it. What
/// can be sent is put together after everything that could make more had its turn, and goes with
/// one vectored write.
pub(crate) struct Driver {
    session: Arc<SharedSession>,
    connection: Option<Box<dyn Link>>,
    serving: Option<Serving>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires, as the session counts time; none if that has no meaning.
    armed: Option<Duration>,
    /// When the session was first seen to be over: a time that the timer has to tell, too.
    over_at: Option<Duration>,
    wakers: Wakers,
}

impl Driver {
    /// A driver without a connection.
    pub(crate) fn new(session: Arc<SharedSession>, serving: Option<Serving>) -> Self {
        Self {
            session,
            connection: None,
            serving,
            timer: Box::pin(sleep_until(Instant::now())),
            armed: None,
            over_at: None,
            wakers: Wakers::new(),
        }
    }

    /// Attaches the session to its peer, which said `hello`; [`Self::connect`] has to follow.
    ///
    /// # Errors
    ///
    /// The refusal, if the two do not fit together; nothing has changed then.
    pub(crate) fn attach(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let attached = self.session.attach(hello, &mut self.wakers);
        self.wake();
        attached
    }

    /// Tells the session that it has no connection.
    pub(crate) fn detach(&mut self, cause: DetachCause, diagnostic: String) {
        self.session.detach(cause, diagnostic, &mut self.wakers);
        self.wake();
    }

    /// Goes on over this connection, which the session was attached for.
    pub(crate) fn connect(&mut self, connection: impl Link + 'static) {
        self.disconnect();
        self.session.metrics().connections.inc();
        self.connection = Some(Box::new(connection));
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.session.metrics().connections.dec();
        }
    }

    /// Drives until there is something to tell. Cancel-safe.
    pub(crate) async fn drive(&mut self) -> Driven {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Driven> {
        loop {
            let read = self.poll_read(context);
            self.wake();
            if let Some(serving) = &mut self.serving {
                serving.poll(context);
            }
            let is_over = self.session.is_over();
            let written = match read {
                Ok(_) => self.poll_write(context),
                Err(_) => Ok(()),
            };
            self.wake();
            if is_over {
                let is_told = self.connection.as_ref().is_none_or(|link| link.is_empty());
                let is_waited_for = !is_told && !self.session.is_silent() && !self.has_waited();
                if !is_waited_for || read.is_err() || written.is_err() {
                    self.disconnect();
                    return Poll::Ready(Driven::Over);
                }
            }
            let failed = read.as_ref().err().or(written.as_ref().err());
            if let Some(error) = failed {
                let diagnostic = error.to_string();
                self.disconnect();
                self.detach(DetachCause::Cut, diagnostic);
                return Poll::Ready(match self.session.is_over() {
                    true => Driven::Over,
                    false => Driven::Cut,
                });
            }
            let has_timed_out = self.poll_timer(context);
            if has_timed_out {
                self.session.handle_timeout(&mut self.wakers);
                self.wake();
                continue;
            }
            let can_send = self.connection.as_ref().is_some_and(|link| link.is_empty());
            let parked = self.session.park(can_send, context);
            let timeout = parked.timeout.or(self.over_at.map(|at| at + FAREWELL));
            if self.arm(timeout) || !parked.is_parked || read.is_ok_and(|is_more| is_more) {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Reads what there is, up to a bound; whether there may be more.
    fn poll_read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match &mut self.connection {
            Some(link) => link.poll_receive(&self.session, &mut self.wakers, context),
            None => Ok(false),
        }
    }

    /// Writes what there is, as far as the connection takes it.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match &mut self.connection {
            Some(link) => link.poll_send(&self.session, &mut self.wakers, context),
            None => Ok(()),
        }
    }

    /// Whether the peer has had its time to be told that the session is over.
    fn has_waited(&mut self) -> bool {
        let now = self.session.now();
        now >= *self.over_at.get_or_insert(now) + FAREWELL
    }

    /// Whether the time has come that the session asked for.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> bool {
        let has_come = self.armed.is_some() && self.timer.as_mut().poll(context).is_ready();
        if has_come {
            self.armed = None;
        }
        has_come
    }

    /// Sees to it that the timer fires in time; a time that moved away is found out then. Whether
    /// the timer has to be polled for that.
    fn arm(&mut self, timeout: Option<Duration>) -> bool {
        let Some(at) = timeout else {
            self.armed = None;
            return false;
        };
        if self.armed.is_some_and(|armed| armed <= at) {
            return false;
        }
        self.timer.as_mut().reset(self.session.instant(at));
        self.armed = Some(at);
        true
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.disconnect();
        // Nobody is left to go on with it.
        self.session.close();
    }
}
