use futures::{StreamExt as _, stream};

use super::*;

/// Two processes, as it were: one serves and publishes, the other asks and subscribes.
#[derive(Clone)]
struct Pair {
    server: TcpPlane,
    client: TcpPlane,
}

impl Pair {
    async fn new() -> Self {
        Self {
            server: plane(TcpConfig::default()).await,
            client: plane(TcpConfig::default()).await,
        }
    }
}

/// A plane with tasks and metrics of its own.
async fn plane(config: TcpConfig) -> TcpPlane {
    let registry = Registry::new();
    TcpPlane::bind(config, &Tasks::new(&registry), &registry, &Health::new())
        .await
        .unwrap()
}

impl RequestPlane for Pair {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        self.server.serve(endpoint, worker, handler)
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        self.client.open(address, request)
    }

    fn peer(&self, address: &str) -> PeerWatch {
        self.client.peer(address)
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        self.client.confirm(instance)
    }
}

impl EventPlane for Pair {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        self.server.publisher(topic, publisher)
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        async move {
            let publisher = Instance {
                address: format!("tcp://{}/suite", self.server.local_addr()),
                ..publisher.clone()
            };
            self.client.subscribe(topic, &publisher).await
        }
        .boxed()
    }
}

mod over_two_processes {
    use super::*;

    crate::request_plane_conformance_tests!(Pair::new().await);
    crate::event_plane_conformance_tests!(Pair::new().await);
}

mod over_one_process {
    use super::*;

    crate::request_plane_conformance_tests!(plane(TcpConfig::default()).await);
}

/// Answers with one frame, and goes on for ever where it is asked to.
struct Once;

impl StreamHandler for Once {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let once = stream::iter([Ok(request.first.clone())]);
        match &request.first[..] == b"stay" {
            true => once.chain(stream::pending()).boxed(),
            false => once.boxed(),
        }
    }
}

#[tokio::test]
async fn where_a_session_has_no_more_ids_another_goes_on() {
    let server = plane(TcpConfig::default()).await;
    let mut client = plane(TcpConfig::default()).await;
    let inner = Arc::get_mut(&mut client.inner).unwrap();
    let of_client = Arc::get_mut(&mut inner.client).unwrap();
    of_client.session.max_opened = 3;
    let endpoint = EndpointId::new("test", "worker", "engine").unwrap();
    let served = server.serve(&endpoint, WorkerId(1), Arc::new(Once)).await;
    let served = served.unwrap();
    let open = |frame: &'static str| {
        let request = StreamRequest::of(Bytes::from_static(frame.as_bytes()));
        client.open(served.address(), request)
    };
    let mut staying = open("stay");
    assert_eq!(staying.next().await.unwrap().unwrap(), "stay");
    for _ in 0..10 {
        assert_eq!(open("go").next().await.unwrap().unwrap(), "go");
    }
    assert!(staying.next().now_or_never().is_none(), "it goes on");
}
