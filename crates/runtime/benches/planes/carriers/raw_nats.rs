//! Request and reply as the NATS client has them.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::Carrier;

const SUBJECT: &str = "echo";

struct Client(async_nats::Client);

impl Carrier for Client {
    fn open(&self, first: Bytes) -> BoxStream<'static, Bytes> {
        let client = self.0.clone();
        let answer = async move {
            let reply = client.request(SUBJECT, first).await;
            reply.expect("somebody replies").payload
        };
        stream::once(answer).boxed()
    }
}

async fn client(service: &str) -> async_nats::Client {
    let client = async_nats::connect(service).await;
    client.expect("the server is there")
}

pub(super) async fn connect(service: &str) -> Box<dyn Carrier> {
    Box::new(Client(client(service).await))
}

pub(super) async fn serve(service: &str) {
    let client = client(service).await;
    let mut requests = client.subscribe(SUBJECT).await.expect("it subscribes");
    client.flush().await.expect("the server knows");
    println!("address {SUBJECT}");
    while let Some(request) = requests.next().await {
        let reply = request.reply.expect("a request has somewhere to reply to");
        let published = client.publish(reply, request.payload).await;
        published.expect("it is published");
    }
}
