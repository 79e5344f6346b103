use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A proxy before a NATS server on a free port of 127.0.0.1 that loses one in so many of the
/// messages whose subject begins with a prefix, on their way from the server to its clients. Who
/// sent them and who waits for them is not told, as with any message of NATS that finds no room.
#[derive(Debug)]
pub struct LossyNats {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: u16,
    prefix: String,
    one_in: u64,
    passed: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

impl LossyNats {
    /// A proxy before the server at this port of 127.0.0.1. Of the messages it is every `one_in`th
    /// that is lost, whichever connection it is for; 0 loses none.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn to(server: u16, prefix: &str, one_in: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            prefix: prefix.to_owned(),
            one_in,
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let relays = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if relays.over.load(Ordering::Relaxed) {
                    return;
                }
                // One that breaks is made anew by who made it.
                let _ = client.and_then(|client| relay(client, &relays));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients find it, as `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How many messages were lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LossyNats {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // The listener's thread looks when someone comes.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Whether the next message of a subject gets through.
    fn passes(&self, subject: &str) -> bool {
        if self.one_in == 0 || !subject.starts_with(&self.prefix) {
            return true;
        }
        let number = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        let passes = !number.is_multiple_of(self.one_in);
        self.lost.fetch_add(u64::from(!passes), Ordering::Relaxed);
        passes
    }
}

/// Connects a client with the server, with a thread for each direction. They end with the
/// connection.
fn relay(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server))?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let shared = shared.clone();
    thread::spawn(move || {
        let _ = filter(BufReader::new(server), &client, |subject| {
            shared.passes(subject)
        });
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Copies what a server says, but for the messages that do not pass.
fn filter(
    mut from: impl BufRead,
    mut to: impl Write,
    passes: impl Fn(&str) -> bool,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        // `MSG subject sid [reply-to] bytes`, and `HMSG` the same, whose bytes are with the headers'.
        if let ["MSG" | "HMSG", subject, .., bytes] = words.as_slice() {
            let bytes: u64 = bytes.parse().map_err(io::Error::other)?;
            let passes = passes(subject);
            // With the line's end after them.
            from.by_ref().take(bytes + 2).read_to_end(&mut line)?;
            if !passes {
                continue;
            }
        }
        to.write_all(&line)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lost_whole_and_nothing_else_is() {
        let said = "INFO {}\r\nMSG lose.it 1 5\r\na\r\nbc\r\nPING\r\nMSG keep 2 reply 2\r\nxy\r\n\
                    HMSG lose.too 1 12 14\r\nNATS/1.0\r\n\r\nzz\r\n+OK\r\n";
        let mut kept = Vec::new();
        let passes = |subject: &str| !subject.starts_with("lose");
        filter(said.as_bytes(), &mut kept, passes).unwrap();
        let kept = String::from_utf8(kept).unwrap();
        assert_eq!(
            kept,
            "INFO {}\r\nPING\r\nMSG keep 2 reply 2\r\nxy\r\n+OK\r\n"
        );
    }

    #[test]
    fn one_in_so_many_is_lost() {
        let proxy = LossyNats::to(1, "a.", 10).unwrap();
        let through = (0..100).filter(|_| proxy.shared.passes("a.b")).count();
        assert_eq!((through, proxy.lost()), (90, 10));
        assert!((0..100).all(|_| proxy.shared.passes("b")));
    }
}
