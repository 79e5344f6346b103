//! Hot paths of a session: what tokens and larger messages pay at both ends together.

use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{Config, Event, Incarnation, Session, SessionId, StreamId};
use forebay_testkit::instructions::{self, measured};

const STREAMS: u32 = 64;
/// About what a token's message is long.
const TOKEN_BYTES: usize = 60;
const NOW: Duration = Duration::from_secs(1);

/// Two ends with streams between them.
struct Ends {
    client: Session,
    server: Session,
    out: Vec<Bytes>,
    ids: Vec<StreamId>,
}

impl Ends {
    fn new() -> Self {
        let id = SessionId(1);
        let mut ends = Self {
            client: Session::client(Config::default(), id, Incarnation(1)),
            server: Session::server(Config::default(), id, Incarnation(2)),
            out: Vec::new(),
            ids: Vec::new(),
        };
        (ends.server.attach(NOW, &ends.client.hello())).expect("they fit together");
        (ends.client.attach(NOW, &ends.server.hello())).expect("they fit together");
        for _ in 0..STREAMS {
            let id = ends.client.open(Bytes::from_static(b"generate"));
            ends.ids.push(id.expect("it may"));
        }
        ends.up();
        // Everything has its room, and acknowledgements come.
        for _ in 0..8 {
            ends.send(TOKEN_BYTES);
            assert_eq!(ends.down(), STREAMS as usize);
            ends.up();
        }
        ends
    }

    /// A message on each stream.
    fn send(&mut self, bytes: usize) {
        for &id in &self.ids {
            let message = Bytes::from(vec![7; bytes]);
            self.server.send(id, message).expect("it is open");
        }
    }

    /// What the server has to send, as one read; its chunks are consumed, and counted.
    fn down(&mut self) -> usize {
        while self.server.transmit(NOW, 256 << 10, &mut self.out) > 0 {}
        let read = Bytes::from(self.out.concat());
        self.out.clear();
        self.client
            .receive(NOW, read)
            .expect("it keeps to the protocol");
        let mut chunks = 0;
        while let Some(event) = self.client.next_event() {
            if let Event::Chunk { id, bytes, .. } = event {
                self.client.consumed(id, bytes.len());
                chunks += 1;
            }
        }
        chunks
    }

    fn up(&mut self) {
        self.client.transmit(NOW, 256 << 10, &mut self.out);
        for part in self.out.drain(..) {
            (self.server.receive(NOW, part)).expect("it keeps to the protocol");
        }
        while self.server.next_event().is_some() {}
    }
}

/// A message of so many bytes on each stream, in one write, with what comes back.
fn messages(bytes: usize) {
    let mut ends = Ends::new();
    let chunks = measured(|| {
        ends.send(bytes);
        let chunks = ends.down();
        ends.up();
        chunks
    });
    assert_eq!(chunks, STREAMS as usize);
}

/// A stream from its opening to its end, with a small message each way.
fn stream() {
    let mut ends = Ends::new();
    let mut once = || {
        let id = ends.client.open(Bytes::from_static(b"generate"));
        let id = id.expect("it may");
        (ends.client.send(id, Bytes::from_static(&[7; 200]))).expect("it is open");
        ends.client.finish(id);
        ends.up();
        (ends.server.send(id, Bytes::from_static(&[7; 60]))).expect("it is open");
        ends.server.finish(id);
        ends.down()
    };
    once();
    assert_eq!(measured(once), 1);
}

fn main() {
    instructions::main(&[
        ("session_token_64_streams", || messages(TOKEN_BYTES)),
        ("session_8_kib_64_streams", || messages(8 << 10)),
        ("session_stream", stream),
    ]);
}
