//! The product's own planes.

use std::future;
use std::sync::Arc;

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_runtime::{
    EndpointId, Health, InProcessPlane, PlanesConfig, RequestPlane, StreamRequest, Tasks,
};
use forebay_tokens::WorkerId;
use futures::stream::{BoxStream, StreamExt as _};

use super::Carrier;
use crate::answers::Answers;

struct Client {
    plane: Arc<dyn RequestPlane>,
    address: String,
}

impl Carrier for Client {
    fn open(&self, first: Bytes) -> BoxStream<'static, Bytes> {
        let answer = self.plane.open(&self.address, StreamRequest::of(first));
        answer.map(|frame| frame.expect("no error")).boxed()
    }
}

fn endpoint() -> EndpointId {
    EndpointId::new("bench", "worker", "engine").expect("these are proper names")
}

pub(super) async fn in_process() -> Box<dyn Carrier> {
    let plane = InProcessPlane::new();
    let answers = Arc::new(Answers::start());
    let served = plane.serve(&endpoint(), WorkerId(1), answers).await;
    let served = served.expect("nobody else serves it");
    let address = served.address().to_owned();
    // For as long as this process lives.
    std::mem::forget(served);
    Box::new(Client {
        plane: Arc::new(plane),
        address,
    })
}

async fn plane(name: &str, service: &str) -> Arc<dyn RequestPlane> {
    let mut config = PlanesConfig {
        discovery: "memory".parse().expect("a choice"),
        ..PlanesConfig::default()
    };
    if name == "NATS" {
        config.requests = service.parse().expect("a choice");
    }
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    let planes = config.connect(&tasks, &registry, &Health::new()).await;
    planes.expect("the plane connects").requests
}

pub(super) async fn connect(name: &str, service: &str, address: &str) -> Box<dyn Carrier> {
    Box::new(Client {
        plane: plane(name, service).await,
        address: address.to_owned(),
    })
}

pub(super) async fn serve(name: &str, service: &str) {
    let plane = plane(name, service).await;
    let answers = Arc::new(Answers::start());
    let served = plane.serve(&endpoint(), WorkerId(1), answers).await;
    // It is served for as long as this value is there.
    let served = served.expect("nobody else serves it");
    println!("address {}", served.address());
    future::pending().await
}
