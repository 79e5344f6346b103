//! Streams as tonic has them, of plain bytes: no message is encoded.

use std::convert::Infallible;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::Carrier;
use crate::answers::Answers;

/// Room for all that comes at a time: with less, thousands of small frames that wait to be read
/// count as an attack, and end the connection.
const WINDOW_BYTES: u32 = 256 << 20;

/// Messages are what they are.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

struct Client(tonic::client::Grpc<Channel>);

impl Carrier for Client {
    fn open(&self, first: Bytes) -> BoxStream<'static, Bytes> {
        let mut client = self.0.clone();
        let answer = async move {
            client.ready().await.expect("it is connected");
            let request = Request::new(stream::iter([first]));
            let path = PathAndQuery::from_static("/bench/answer");
            let answer: Result<Response<Streaming<Bytes>>, _> =
                client.streaming(request, path, Plain).await;
            let frames = answer.expect("no error").into_inner();
            frames.map(|frame| frame.expect("no error"))
        };
        stream::once(answer).flatten().boxed()
    }
}

pub(super) async fn connect(address: &str) -> Box<dyn Carrier> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let endpoint = endpoint.initial_connection_window_size(WINDOW_BYTES);
    let channel = endpoint.tcp_nodelay(true).connect().await;
    Box::new(Client(tonic::client::Grpc::new(
        channel.expect("it connects"),
    )))
}

pub(super) async fn serve() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let incoming = TcpIncoming::bind(any)
        .expect("a port")
        .with_nodelay(Some(true));
    println!("address {}", incoming.local_addr().expect("a port"));
    let answers = Answers::start();
    let service = service_fn(move |request| {
        let answers = answers.clone();
        async move {
            let method = service_fn(move |request: Request<Streaming<Bytes>>| {
                let answers = answers.clone();
                async move {
                    let first = request.into_inner().next().await;
                    let first = first.expect("a request has a frame").expect("no error");
                    Ok::<_, Status>(Response::new(answers.answer(first).map(Ok)))
                }
            });
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok::<_, Infallible>(grpc.streaming(method, request).await)
        }
    });
    // As many streams as are asked for.
    let server = Server::builder()
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(None);
    let served = server.serve_with_incoming(service, incoming).await;
    served.expect("it serves");
}
