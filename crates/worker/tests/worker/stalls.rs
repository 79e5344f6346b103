//! Engines that do nothing, and such as only look like it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_engine::remote::RemoteEngine;
use forebay_engine::{Control, Engine, ErrorClass, GenerateStream};
use forebay_worker::Worker;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use crate::deployment::*;
use crate::toy::in_time;

/// The default.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for every stall to show.
const LONG: Duration = Duration::from_secs(600);

/// A worker, and what one who asks it has got an output of.
struct Scene {
    deployment: Deployment,
    remote: RemoteEngine,
    running: GenerateStream,
    worker: Worker,
}

impl Scene {
    async fn begin() -> Self {
        let mut deployment = Deployment::new().await;
        let worker = deployment.start().await.unwrap();
        let remote = deployment.found().await;
        let mut running = remote.generate(request(u32::MAX)).await.unwrap();
        running.next().await.unwrap().unwrap();
        Self {
            deployment,
            remote,
            running,
            worker,
        }
    }

    /// The client takes what is there, and then waits for the engine.
    fn ask(&mut self) {
        while self.running.next().now_or_never().is_some() {}
    }

    /// A long time passes, and the worker stays.
    async fn stays(&mut self) {
        sleep(LONG).await;
        assert_eq!(self.deployment.watch.next().now_or_never(), None);
        assert!(self.deployment.health.is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stalls_is_out_until_it_answers_again() {
    let mut scene = Scene::begin().await;
    scene.deployment.toy.stall();
    let begun = Instant::now();
    scene.ask();
    let outputs = in_time(scene.running.collect::<Vec<_>>()).await;
    let last = outputs.into_iter().next_back().unwrap();
    // Not as of a worker that was asked to end: a request may be what an engine stalls at.
    assert_eq!(&*last.unwrap_err().reason, "engine_lost");
    let look = STALL_TIMEOUT / 8;
    assert!((STALL_TIMEOUT..STALL_TIMEOUT + 2 * look).contains(&begun.elapsed()));
    scene.deployment.removed().await;
    assert!(!scene.deployment.health.is_ready());
    let refused = scene.remote.generate(request(1)).await;
    assert_eq!(refused.err().unwrap().class, ErrorClass::Unavailable);
    assert_eq!(*scene.deployment.toy.running.borrow(), 0);

    // It is tried again and again, and comes back by itself.
    sleep(LONG).await;
    assert_eq!(scene.deployment.watch.next().now_or_never(), None);
    scene.deployment.toy.go_on();
    let remote = scene.deployment.found().await;
    in_time(scene.deployment.health.ready()).await;
    let stream = remote.generate(request(3)).await.unwrap();
    assert_eq!(in_time(stream.count()).await, 3);
}

#[tokio::test(start_paused = true)]
async fn requests_that_keep_coming_hide_no_stall() {
    let mut scene = Scene::begin().await;
    scene.deployment.toy.stall();
    scene.ask();
    let begun = Instant::now();
    let mut waiting = Vec::new();
    // The newest worker of a fleet is sent much; all of it waits there.
    while let Ok(mut stream) = scene.remote.generate(request(9)).await {
        assert!(stream.next().now_or_never().is_none());
        waiting.push(stream);
        scene
            .deployment
            .toy
            .prefill_tokens
            .fetch_add(9, Ordering::Relaxed);
        sleep(Duration::from_millis(700)).await;
        assert!(begun.elapsed() < 2 * STALL_TIMEOUT, "it is not noticed");
    }
    scene.deployment.removed().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_whose_engine_stalls_is_not_waited_for() {
    let mut scene = Scene::begin().await;
    scene.deployment.toy.stall();
    scene.ask();
    scene.deployment.removed().await;
    let begun = Instant::now();
    assert!(scene.worker.stop(LONG).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_outputs_is_not_the_engine_s_fault() {
    let mut scene = Scene::begin().await;
    // It took one, and asks for no more.
    scene.stays().await;
    // It asked while nothing was there, and does not look now that there is.
    scene.deployment.toy.stall();
    scene.ask();
    scene.deployment.toy.go_on();
    scene.stays().await;
    scene.running.next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_prefill_is_no_stall() {
    let mut scene = Scene::begin().await;
    let prefill = scene.deployment.toy.prefill_tokens.clone();
    prefill.store(1000, Ordering::Relaxed);
    scene.deployment.toy.stall();
    scene.ask();
    for _ in 0..100 {
        // A step takes two thirds of what is allowed.
        sleep(STALL_TIMEOUT * 2 / 3).await;
        prefill.fetch_sub(1, Ordering::Relaxed);
    }
    assert_eq!(scene.deployment.watch.next().now_or_never(), None);
    // And when it goes on no more, that shows.
    scene.deployment.removed().await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_in_a_paused_engine_does_not_hold_up_a_stop() {
    let Scene {
        running, worker, ..
    } = Scene::begin().await;
    worker.handle().control(Control::Pause).await.unwrap();
    let begun = Instant::now();
    assert!(!worker.stop(LONG).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let last = running.collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.unwrap_err().class, ErrorClass::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_paused_during_a_stop_ends_it() {
    let Scene {
        running, worker, ..
    } = Scene::begin().await;
    let handle = worker.handle().clone();
    let drain = worker.leave().await.drain();
    let begun = Instant::now();
    let pause = async { handle.control(Control::Pause).await.unwrap() };
    let (by_themselves, ()) = tokio::join!(timeout(LONG, drain), pause);
    assert!(!by_themselves.unwrap());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let last = running.collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.unwrap_err().class, ErrorClass::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_paused_engine_has_not_stalled() {
    let mut scene = Scene::begin().await;
    scene.remote.control(Control::Pause).await.unwrap();
    scene.ask();
    scene.deployment.removed().await;
    sleep(LONG).await;
    assert!(scene.running.next().now_or_never().is_none(), "it stays");
    scene.remote.control(Control::Resume).await.unwrap();
    scene.deployment.put().await;
    scene.running.next().await.unwrap().unwrap();
    // One that stalls after it is another matter.
    scene.deployment.toy.stall();
    scene.ask();
    scene.deployment.removed().await;
}
