//! The least that a round trip can be: bytes there and back on a socket.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::Carrier;

/// One round trip at a time.
struct Client(Arc<Mutex<TcpStream>>);

impl Carrier for Client {
    fn open(&self, first: Bytes) -> BoxStream<'static, Bytes> {
        let socket = self.0.clone();
        let answer = async move {
            let mut socket = socket.lock().await;
            socket.write_all(&first).await.expect("it is written");
            let mut frame = vec![0; first.len()];
            socket.read_exact(&mut frame).await.expect("it is read");
            Bytes::from(frame)
        };
        stream::once(answer).boxed()
    }
}

pub(super) async fn connect(address: &str) -> Box<dyn Carrier> {
    let socket = TcpStream::connect(address).await.expect("it connects");
    socket.set_nodelay(true).expect("it is a TCP socket");
    Box::new(Client(Arc::new(Mutex::new(socket))))
}

pub(super) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("address {}", listener.local_addr().expect("a port"));
    let (mut socket, _) = listener.accept().await.expect("a client");
    socket.set_nodelay(true).expect("it is a TCP socket");
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = socket.read(&mut buffer).await.expect("it is read");
        socket
            .write_all(&buffer[..count])
            .await
            .expect("it is written");
    }
}
