//! Planes by their settings, without any service.
#![cfg(feature = "tcp")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_observability::{ErrorChain, Registry};
use forebay_runtime::{
    ConnectError, DiscoveryChoice, DownCause, EndpointId, Health, Instance, MemberEvent, Planes,
    PlanesConfig, RequestsChoice, ResponseStream, StreamHandler, StreamRequest, Tasks, members,
};
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tempfile::TempDir;
use tokio::time::timeout;

/// Answers with the frame it got.
struct Echo;

impl StreamHandler for Echo {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        stream::iter([Ok(request.first)]).boxed()
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = timeout(Duration::from_secs(60), future).await;
    output.expect("what had to happen did not")
}

async fn next(members: &mut BoxStream<'static, MemberEvent>) -> MemberEvent {
    in_time(members.next()).await.unwrap()
}

/// The planes of a process of its own.
async fn connect(config: &PlanesConfig) -> Result<Planes, ConnectError> {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    in_time(config.connect(&tasks, &registry, &Health::new())).await
}

fn in_directory(directory: &TempDir) -> PlanesConfig {
    PlanesConfig {
        discovery: DiscoveryChoice::File(Some(directory.path().to_owned())),
        ..PlanesConfig::default()
    }
}

#[tokio::test]
async fn processes_find_each_other_by_a_directory_and_talk() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_directory(&directory);
    let frontend = connect(&config).await.unwrap();
    let endpoint = EndpointId::new("forebay", "worker", "echo").unwrap();
    let mut members = members(&frontend, endpoint.clone(), &Registry::new());

    let planes = connect(&config).await.unwrap();
    let worker = WorkerId(0xfeed);
    let served = planes.requests.serve(&endpoint, worker, Arc::new(Echo));
    let served = in_time(served).await.unwrap();
    let instance = Instance {
        endpoint,
        worker,
        address: served.address().to_owned(),
        card: Bytes::from_static(b"card"),
    };
    served.announce(instance.card.clone());
    let registration = in_time(planes.discovery.register(instance.clone()));
    let registration = registration.await.unwrap();

    assert_eq!(next(&mut members).await, MemberEvent::Up(instance.clone()));
    let request = StreamRequest::of("hello".into());
    let mut answer = frontend.requests.open(&instance.address, request);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "hello");

    in_time(registration.deregister()).await.unwrap();
    let down = MemberEvent::Down(worker, DownCause::Goodbye);
    assert_eq!(next(&mut members).await, down);
}

#[tokio::test]
async fn who_ends_without_a_goodbye_is_down_before_its_lease_ends() {
    let directory = tempfile::tempdir().unwrap();
    let config = PlanesConfig {
        // No test waits that long.
        lease_seconds: 3600.0,
        ..in_directory(&directory)
    };
    let frontend = connect(&config).await.unwrap();
    let endpoint = EndpointId::new("forebay", "worker", "echo").unwrap();
    let mut members = members(&frontend, endpoint.clone(), &Registry::new());
    let planes = connect(&config).await.unwrap();
    let served = planes
        .requests
        .serve(&endpoint, WorkerId(1), Arc::new(Echo));
    let served = in_time(served).await.unwrap();
    let instance = Instance {
        endpoint,
        worker: WorkerId(1),
        address: served.address().to_owned(),
        card: Bytes::new(),
    };
    served.announce(instance.card.clone());
    let registration = in_time(planes.discovery.register(instance.clone()));
    let _registration = registration.await.unwrap();
    assert_eq!(next(&mut members).await, MemberEvent::Up(instance));
    drop(served);
    let event = next(&mut members).await;
    assert!(
        matches!(event, MemberEvent::Down(WorkerId(1), _)),
        "{event:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = PlanesConfig {
        discovery: DiscoveryChoice::File(Some(file.clone())),
        ..PlanesConfig::default()
    };
    let error = connect(&config).await.unwrap_err();
    let text = ErrorChain(&error).to_string();
    assert!(text.contains(&format!("file:{}", file.display())), "{text}");

    let config = PlanesConfig {
        requests: RequestsChoice::Nats,
        ..in_directory(&directory)
    };
    let error = connect(&config).await.unwrap_err();
    assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
}
