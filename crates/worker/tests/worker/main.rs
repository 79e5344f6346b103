//! A worker on in-process planes: found, used, followed, lost and found again.
#![allow(clippy::unwrap_used)]

mod deployment;
mod outage;
mod stalls;
#[cfg(feature = "status")]
mod status;
mod toy;

use std::collections::BTreeSet;
use std::time::Duration;

use deployment::*;
use forebay_engine::remote::{KvRepairs, KvUpdate, RemoteEngine};
use forebay_engine::{Engine, ErrorClass, GenerateStream};
use forebay_runtime::{Shutdown, ShutdownCause, ShutdownConfig};
use forebay_tokens::{KvEvent, WorkerId};
use forebay_worker::{StartError, WorkerConfig};
use futures::StreamExt;
use futures::stream::BoxStream;
use toy::*;

async fn count(stream: GenerateStream) -> usize {
    let outputs: Vec<_> = in_time(stream.collect()).await;
    outputs.into_iter().filter(Result::is_ok).count()
}

#[tokio::test]
async fn a_worker_is_found_and_used() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    assert!(deployment.health.is_ready());
    let instance = deployment.put().await;
    assert_eq!(instance.worker, worker.id());
    let remote = deployment.remote(instance);
    assert_eq!((remote.model(), remote.worker()), ("model", WorkerId(5)));
    assert_eq!(remote.info(), deployment.toy.info());
    assert_eq!(count(remote.generate(request(9)).await.unwrap()).await, 9);

    // Looking at the load is what makes it known.
    let _running = remote.generate(request(u32::MAX)).await.unwrap();
    let seen = async {
        while remote.load().running_requests != 1 {
            tokio::task::yield_now().await;
        }
    };
    in_time(seen).await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_not_registered() {
    let deployment = Deployment::new().await;
    deployment.toy.die();
    let error = deployment.start().await.unwrap_err();
    let StartError::Engine(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(!deployment.health.is_ready());
    let listed = deployment.planes.discovery.list(&endpoint()).await;
    assert_eq!(listed.unwrap(), []);
}

#[tokio::test]
async fn settings_are_checked() {
    let deployment = Deployment::new().await;
    let config = WorkerConfig {
        namespace: "No name".into(),
        ..config()
    };
    let error = deployment.start_with(&config).await;
    assert!(matches!(error, Err(StartError::Config(_))));
}

#[tokio::test]
async fn two_workers_of_one_id_are_refused() {
    let deployment = Deployment::new().await;
    let _first = deployment.start().await.unwrap();
    let second = deployment.start().await;
    assert!(matches!(second, Err(StartError::Plane(_))));
}

#[tokio::test]
async fn a_stop_lets_streams_end() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    let remote = deployment.found().await;
    let running = remote.generate(request(100)).await.unwrap();
    let stop = worker.stop(Duration::from_secs(60));
    let (stopped, outputs) = tokio::join!(in_time(stop), async {
        deployment.removed().await;
        // It is no longer known, and refuses, but what runs goes on.
        let refused = loop {
            match remote.generate(request(1)).await {
                Ok(stream) => drop(stream),
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(refused.class, ErrorClass::Unavailable);
        count(running).await
    });
    assert!(stopped);
    assert_eq!(outputs, 100);
}

#[tokio::test]
async fn a_stop_cuts_what_takes_too_long() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    let remote = deployment.found().await;
    let mut running = remote.generate(request(u32::MAX)).await.unwrap();
    running.next().await.unwrap().unwrap();
    assert!(!worker.stop(Duration::ZERO).await);
    let last = in_time(running.collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!(last.unwrap_err().class, ErrorClass::Unavailable);
    assert_eq!(*deployment.toy.running.borrow(), 0);
}

#[tokio::test]
async fn a_shutdown_deregisters_first() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    deployment.put().await;
    deployment
        .tasks
        .begin_shutdown(ShutdownCause::Requested("test"));
    let shutdown = Shutdown::new(ShutdownConfig::default());
    let report = in_time(shutdown.run(&deployment.tasks, &deployment.health)).await;
    assert_eq!(report.unwrap().exit_code(), 0);
    deployment.removed().await;
    drop(worker);
}

#[tokio::test]
async fn a_dropped_worker_is_forgotten() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    let remote = deployment.found().await;
    drop(worker);
    deployment.removed().await;
    let error = remote.generate(request(1)).await.err().unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    let mut deployment = Deployment::new().await;
    let _worker = deployment.start().await.unwrap();
    let remote = deployment.found().await;
    let mut running = remote.generate(request(u32::MAX)).await.unwrap();
    running.next().await.unwrap().unwrap();
    assert_eq!(*deployment.toy.running.borrow(), 1);
    drop(running);
    assert_eq!(*deployment.toy.running.borrow(), 0);
}

#[tokio::test]
async fn an_engine_that_dies_is_out_until_it_answers_again() {
    let mut deployment = Deployment::new().await;
    let _worker = deployment.start().await.unwrap();
    let remote = deployment.found().await;
    let mut running = remote.generate(request(u32::MAX)).await.unwrap();
    running.next().await.unwrap().unwrap();

    deployment.toy.die();
    let last = in_time(running.collect::<Vec<_>>()).await.pop().unwrap();
    assert_eq!(last.unwrap_err().class, ErrorClass::Unavailable);
    deployment.removed().await;
    let report = deployment.health.report();
    assert_eq!(report.conditions[0].reason, "the engine does not answer");

    deployment.toy.revive();
    let instance = deployment.put().await;
    in_time(deployment.health.ready()).await;
    let remote = deployment.remote(instance);
    assert_eq!(count(remote.generate(request(3)).await.unwrap()).await, 3);
}

/// What a follower knows.
struct Follower {
    updates: BoxStream<'static, KvUpdate>,
    held: BTreeSet<u64>,
    resets: usize,
}

impl Follower {
    fn of(engine: RemoteEngine) -> Self {
        Self {
            updates: engine.kv_updates(&KvRepairs::default()),
            held: BTreeSet::new(),
            resets: 0,
        }
    }

    async fn until(&mut self, expected: impl IntoIterator<Item = u64>) {
        let expected: BTreeSet<_> = expected.into_iter().collect();
        while self.held != expected || self.resets == 0 {
            let update = in_time(self.updates.next()).await.unwrap();
            self.apply(update);
        }
    }

    fn apply(&mut self, update: KvUpdate) {
        let events = match update {
            KvUpdate::Reset { events, .. } => {
                self.held.clear();
                self.resets += 1;
                events
            }
            KvUpdate::Changes { events, .. } => events,
            KvUpdate::State(_) => return,
        };
        for event in events {
            match event {
                KvEvent::Stored { blocks, .. } => {
                    for block in blocks {
                        assert!(self.held.insert(block.0), "{block:?} came twice");
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn followers_know_what_the_cache_holds() {
    let mut deployment = Deployment::new().await;
    deployment.toy.store(1);
    let worker = deployment.start().await.unwrap();
    let instance = deployment.put().await;
    let mut early = Follower::of(deployment.remote(instance.clone()));
    early.until([1]).await;
    deployment.toy.store(2);
    early.until([1, 2]).await;
    let mut late = Follower::of(deployment.remote(instance));
    late.until([1, 2]).await;
    deployment.toy.store(3);
    early.until([1, 2, 3]).await;
    late.until([1, 2, 3]).await;
    assert_eq!((early.resets, late.resets), (1, 1), "nothing was lost");

    let figures = worker.handle().kv_figures().unwrap();
    assert_eq!((figures.announced_blocks, figures.ring_batches), (3, 3));
    assert_eq!((figures.snapshots, figures.ranges), (2, 0));
    assert!((1..figures.ring_limit_bytes).contains(&figures.ring_bytes));
}

#[tokio::test]
async fn what_a_follower_misses_is_repaired() {
    let mut deployment = Deployment::new().await;
    let worker = deployment.start().await.unwrap();
    let instance = deployment.put().await;
    let mut follower = Follower::of(deployment.remote(instance));
    follower.until([]).await;
    // More at once than the engine keeps for the worker, which is told anew and publishes the
    // difference.
    for hash in 0..50 {
        deployment.toy.store(hash);
    }
    follower.until(0..50).await;
    assert_eq!(follower.resets, 1);

    // More than the event plane keeps for a follower that does not look.
    for hash in 50..3000 {
        deployment.toy.store(hash);
        tokio::task::yield_now().await;
    }
    follower.until(0..3000).await;
    let figures = worker.handle().kv_figures().unwrap();
    assert_eq!(figures.announced_blocks, 3000);
    assert!(figures.ranges > 0, "{figures:?}");
}

#[tokio::test]
async fn a_follower_survives_its_engine() {
    let mut deployment = Deployment::new().await;
    let _worker = deployment.start().await.unwrap();
    let instance = deployment.put().await;
    let mut follower = Follower::of(deployment.remote(instance));
    for hash in [1, 2, 3] {
        deployment.toy.store(hash);
    }
    follower.until([1, 2, 3]).await;
    deployment.toy.die();
    deployment.removed().await;
    // The engine that comes back counts anew, and its worker begins an epoch.
    deployment.toy.revive();
    deployment.put().await;
    deployment.toy.store(8);
    deployment.toy.store(9);
    follower.until([8, 9]).await;
}
