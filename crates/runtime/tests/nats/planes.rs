use std::sync::Arc;

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_runtime::{
    ConnectError, EndpointId, Health, Instance, NatsConfig, Planes, PlanesConfig, ResponseStream,
    Secret, StreamHandler, StreamRequest, Tasks,
};
use forebay_testkit::NatsServer;
use forebay_tokens::WorkerId;
use futures::{StreamExt as _, stream};

use crate::in_time;

fn config(server: &NatsServer) -> PlanesConfig {
    PlanesConfig {
        discovery: "memory".parse().unwrap(),
        requests: "nats".parse().unwrap(),
        events: Some(server.url().parse().unwrap()),
        ..PlanesConfig::default()
    }
}

async fn connect(config: &PlanesConfig) -> Result<Planes, ConnectError> {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    in_time(config.connect(&tasks, &registry, &Health::new())).await
}

struct Echo;

impl StreamHandler for Echo {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        stream::iter([Ok(request.first)]).boxed()
    }
}

#[tokio::test]
async fn settings_make_planes_over_nats() {
    let server = NatsServer::with_options(&["--user", "someone", "--pass", "secret"]);
    let mut config = config(&server);
    let error = connect(&config).await.unwrap_err();
    assert!(matches!(error, ConnectError::Plane { .. }), "{error:?}");
    config.nats.user = Some("someone".into());
    config.nats.password = Some(Secret::new("secret"));
    let (here, there) = (
        connect(&config).await.unwrap(),
        connect(&config).await.unwrap(),
    );

    let (endpoint, worker) = (EndpointId::new("a", "b", "c").unwrap(), WorkerId(1));
    let served = there.requests.serve(&endpoint, worker, Arc::new(Echo));
    let served = in_time(served).await.unwrap();
    let request = StreamRequest::of(Bytes::from_static(b"hello"));
    let mut answer = here.requests.open(served.address(), request);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "hello");

    let topic = endpoint.topic("kv", worker).unwrap();
    let instance = Instance {
        endpoint,
        worker,
        address: served.address().to_owned(),
        card: Bytes::new(),
    };
    let mut events = in_time(here.events.subscribe(&topic, &instance))
        .await
        .unwrap();
    let mut publisher = in_time(there.events.publisher(&topic, worker))
        .await
        .unwrap();
    publisher.publish(Bytes::from_static(b"news"));
    let event = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!(event.payload, "news");
}

#[test]
fn secrets_are_not_printed() {
    let config = NatsConfig {
        user: Some("someone".into()),
        password: Some(Secret::new("hidden")),
        ..NatsConfig::default()
    };
    let text = format!("{config:?}");
    assert!(
        text.contains("someone") && !text.contains("hidden"),
        "{text}"
    );
}
