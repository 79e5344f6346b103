use std::sync::Arc;

use forebay_mux::events::{KvLedger, KvPosition};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{ResponseStream, Tasks};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;

use super::kv_figures::{KvCounts, KvFigures};
use super::kv_frames::encode_sync;

/// The newest ledger of a worker's KV events, as its publisher writes it and the handler reads it.
#[derive(Clone, Debug, Default)]
pub(super) struct KvTruth {
    told: Arc<Mutex<Option<Told>>>,
    counts: Arc<KvCounts>,
}

/// A ledger that has the whole of the engine's caches.
#[derive(Clone, Debug)]
struct Told {
    ledger: Arc<Mutex<KvLedger>>,
    tasks: Tasks,
}

impl KvTruth {
    /// From now on followers are told from this ledger.
    pub(super) fn tell(&self, ledger: Arc<Mutex<KvLedger>>, tasks: Tasks) {
        *self.told.lock() = Some(Told { ledger, tasks });
    }

    /// What the publisher has to keep up to date.
    pub(super) fn counts(&self) -> &Arc<KvCounts> {
        &self.counts
    }

    /// What it comes to now.
    pub(super) fn figures(&self) -> KvFigures {
        self.counts.figures()
    }

    /// The frames that answer a `KvSyncRequest`, made off the async threads.
    pub(super) fn sync(&self, since: Option<KvPosition>) -> ResponseStream {
        let told = self.told.lock().clone();
        let counts = self.counts.clone();
        let frames = async move {
            let Told { ledger, tasks } = told.ok_or_else(unpublished)?;
            let sync = move || {
                let sync = ledger.lock().sync(since);
                counts.answer(&sync.answer);
                encode_sync(sync)
            };
            tasks.run_blocking("kv_sync", sync).await.map_err(stopping)
        };
        stream::once(frames)
            .flat_map(|frames| match frames {
                Ok(frames) => stream::iter(frames.into_iter().map(Ok)).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            })
            .boxed()
    }
}

fn unpublished() -> Error {
    let message = "the worker does not publish its KV events yet";
    Error::new(ErrorClass::Unavailable, "kv_events_unpublished", message)
}

/// The work was not done, as the process ends.
pub(super) fn stopping(error: forebay_runtime::BlockingError) -> Error {
    let message = "the worker is stopping";
    Error::new(ErrorClass::Unavailable, "worker_stopped", message)
        .with_diagnostic(error.to_string())
}
