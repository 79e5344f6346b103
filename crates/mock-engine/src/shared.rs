use std::sync::Arc;
use std::time::Duration;

use forebay_batch_scheduler::SequenceId;
use forebay_engine::host::{KvBroadcast, KvSubscription, LiveStreams, OutputStream, Writers};
use forebay_engine::{Control, Error, ErrorClass, GenerateRequest, Load};
use forebay_mocker::{ConfigError, Fault, Mocker};
use forebay_tokens::{DpRank, RequestId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// There is one.
const RANK: DpRank = DpRank(0);

/// How long iterations that are due run on before the task lets others run: outputs are handed
/// over after that, so a burst of tokens reaches its consumers in few pieces.
const TURN: Duration = Duration::from_micros(200);

/// What callers and the engine's task have in common.
///
/// Callers change the state themselves, under the lock and for the time of one call. The task is
/// woken only for what is due earlier than what it sleeps for.
pub(crate) struct Shared {
    state: Mutex<State>,
    streams: LiveStreams,
    /// A copy, so that who asks for it waits for no iteration.
    load: Mutex<Load>,
    wake: Arc<Notify>,
    /// When the mocker's time began.
    start: Instant,
}

struct State {
    mocker: Mocker,
    writers: Writers<SequenceId>,
    /// `None` once the engine is of no use any more.
    kv_events: Option<KvBroadcast>,
    /// Until when the task sleeps if nobody wakes it; `None` is for ever.
    sleeps_until: Option<Duration>,
    has_stopped: bool,
}

impl Shared {
    pub(crate) fn new(mocker: Mocker) -> Self {
        let wake = Arc::new(Notify::new());
        let woken = wake.clone();
        Self {
            load: Mutex::new(mocker.load()),
            state: Mutex::new(State {
                mocker,
                writers: Writers::default(),
                kv_events: Some(KvBroadcast::new(RANK)),
                sleeps_until: None,
                has_stopped: false,
            }),
            streams: LiveStreams::new(move || woken.notify_one()),
            wake,
            start: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn generate(&self, request: GenerateRequest) -> Result<OutputStream, Error> {
        let (writer, stream) = self.streams.open(&request.request_id, request.choice_index);
        let mut state = self.state.lock();
        state.check()?;
        // A name is free as soon as its stream is dropped.
        if self.streams.take_unwanted() {
            state.end_unwanted();
        }
        let id = state.mocker.submit(self.now(), request)?;
        // An abort that came before the writer was here has not found it.
        let is_unwanted = writer.unwanted().is_some();
        state.writers.insert(id, writer);
        if is_unwanted {
            state.end_unwanted();
        }
        *self.load.lock() = state.mocker.load();
        if state.must_wake() {
            self.wake.notify_one();
        }
        Ok(stream)
    }

    pub(crate) fn abort(&self, request: &RequestId) {
        self.streams.abort(request.as_str());
    }

    pub(crate) fn stop(&self, request: &RequestId, choice: u32) {
        self.streams.stop(request.as_str(), choice);
    }

    pub(crate) fn load(&self) -> Load {
        *self.load.lock()
    }

    pub(crate) fn subscribe(&self) -> Result<KvSubscription, Error> {
        let mut state = self.state.lock();
        state.check()?;
        state.publish_kv_events();
        let snapshot = state.mocker.kv_snapshot();
        let kv_events = state.kv_events.as_ref().ok_or_else(stopped)?;
        Ok(kv_events.subscribe(snapshot))
    }

    pub(crate) fn control(&self, control: Control) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.check()?;
        match control {
            Control::ClearKvCache => {
                state.mocker.clear_kv_cache();
                state.publish_kv_events();
            }
            Control::Pause => state.mocker.pause(),
            Control::Resume => state.mocker.resume(),
            Control::Unspecified => {
                return Err(Error::unsupported("control", "it must be specified"));
            }
        }
        *self.load.lock() = state.mocker.load();
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn inject(&self, fault: Fault) -> Result<(), ConfigError> {
        self.state.lock().mocker.inject(self.now(), fault)?;
        self.wake.notify_one();
        Ok(())
    }

    /// The engine's task: steps the mocker until it is cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let _end = Stop(self.clone());
        let mut cancelled = std::pin::pin!(cancel.cancelled());
        loop {
            let woken = self.wake.notified();
            match self.turn() {
                Some(due) if due <= self.now() => {
                    tokio::task::yield_now().await;
                    if cancel.is_cancelled() {
                        return;
                    }
                }
                Some(due) => tokio::select! {
                    biased;
                    () = &mut cancelled => return,
                    () = woken => {}
                    () = sleep_until(self.start + due) => {}
                },
                None => tokio::select! {
                    biased;
                    () = &mut cancelled => return,
                    () = woken => {}
                },
            }
        }
    }

    /// Runs what is due, hands it over, and gives when something is due again.
    fn turn(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        if self.streams.take_unwanted() {
            state.end_unwanted();
        }
        let now = self.now();
        let begun = std::time::Instant::now();
        while state.mocker.wake_at().is_some_and(|due| due <= now) && begun.elapsed() < TURN {
            state.mocker.step(now);
        }
        state.publish_kv_events();
        // Who sees the end of a stream sees the load without it.
        *self.load.lock() = state.mocker.load();
        state.hand_over();
        state.sleeps_until = state.mocker.wake_at();
        state.sleeps_until
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        if self.has_stopped {
            return Err(stopped());
        }
        self.mocker.check()
    }

    /// Whether something is due before the task wakes by itself.
    fn must_wake(&self) -> bool {
        let before = |due| self.sleeps_until.is_none_or(|until| due < until);
        self.mocker.wake_at().is_some_and(before)
    }

    /// Ends the choices that nobody wants any more.
    fn end_unwanted(&mut self) {
        let mocker = &mut self.mocker;
        self.writers.end_unwanted(|id| mocker.abort(id));
    }

    fn hand_over(&mut self) {
        for (id, output) in self.mocker.take_outputs() {
            self.writers.hand_over(id, output);
        }
    }

    fn publish_kv_events(&mut self) {
        let events = self.mocker.take_kv_events();
        if self.mocker.check().is_err() {
            // Nobody knows what a crashed engine holds.
            self.kv_events = None;
        }
        if let Some(kv_events) = &mut self.kv_events {
            kv_events.publish(events);
        }
    }
}

/// However the task ends, no stream stays open and no load is shown.
struct Stop(Arc<Shared>);

impl Drop for Stop {
    fn drop(&mut self) {
        let Self(shared) = self;
        let error = if std::thread::panicking() {
            Error::internal("the engine's task panicked")
        } else {
            stopped()
        };
        let mut state = shared.state.lock();
        // From here on nothing is accepted, so no stream comes after those that are failed.
        state.has_stopped = true;
        state.kv_events = None;
        *shared.load.lock() = Load::default();
        shared.streams.fail_all(&error);
        state.writers.clear();
    }
}

fn stopped() -> Error {
    let message = "the engine has stopped";
    Error::new(ErrorClass::Unavailable, "engine_stopped", message)
}
