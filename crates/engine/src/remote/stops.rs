use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{self, BoxFuture};
use parking_lot::Mutex;

/// The generations of one engine that can be asked to stop, by request and choice.
#[derive(Clone, Default)]
pub(super) struct Stops(Arc<Mutex<HashMap<Name, oneshot::Sender<()>>>>);

type Name = (String, u32);

/// A generation that can be asked to stop, as long as this is there.
pub(super) struct Stoppable {
    stops: Stops,
    name: Name,
}

impl Stops {
    /// One more, and what completes when it is asked. None, and never, while there is another one of
    /// that name, which no engine takes twice.
    pub(super) fn begin(
        &self,
        request: &str,
        choice: u32,
    ) -> (Option<Stoppable>, BoxFuture<'static, ()>) {
        let name = (request.to_owned(), choice);
        let (ask, asked) = oneshot::channel();
        match self.0.lock().entry(name.clone()) {
            Entry::Occupied(_) => return (None, future::pending().boxed()),
            Entry::Vacant(vacant) => vacant.insert(ask),
        };
        let stop = async {
            if asked.await.is_err() {
                future::pending().await
            }
        };
        let stops = self.clone();
        (Some(Stoppable { stops, name }), stop.boxed())
    }

    /// Asks one to stop, if it is there and was not asked before.
    pub(super) fn stop(&self, request: &str, choice: u32) {
        let ask = self.0.lock().remove(&(request.to_owned(), choice));
        if let Some(ask) = ask {
            // Its stream may end just now.
            let _ = ask.send(());
        }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        self.stops.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_asked_once_and_nobody_else() {
        let stops = Stops::default();
        let (one, mut stop_one) = stops.begin("a", 0);
        let (two, stop_two) = stops.begin("a", 1);
        assert!(stops.begin("a", 0).0.is_none());
        stops.stop("b", 0);
        assert!((&mut stop_one).now_or_never().is_none());
        stops.stop("a", 0);
        stops.stop("a", 0);
        assert!(stop_one.now_or_never().is_some());
        assert!(stop_two.now_or_never().is_none());
        drop((one, two));
        assert!(stops.0.lock().is_empty());
    }
}
