//! The hub is a small HTTP server here: what has not run against a real one is TLS.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::config::{Secret, StoreConfig};
use crate::conformance;
use crate::model_ref::ModelRef;
use crate::store::{PulledModel, Store};

const PATH: &str = "/acme/tiny/resolve/v1/q8/m.gguf";

/// A request's head, as far as the tests look at it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Request {
    method: String,
    path: String,
    range: Option<String>,
    token: Option<String>,
}

impl Request {
    /// The first byte that is asked for.
    fn start(&self) -> usize {
        let range = self.range.as_deref().unwrap_or("bytes=0-");
        range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap()
    }
}

/// What to answer; the connection is closed after `sent` bytes of the body.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Answer {
    fn new(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.to_string()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_vec(),
            sent: body.len(),
        }
    }

    fn cut_after(self, sent: usize) -> Self {
        Self {
            sent: sent.min(self.sent),
            ..self
        }
    }
}

struct Server {
    endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `answer`, on its own connection, as long as the test runs.
    fn start(mut answer: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some(request) = read_head(&connection) else {
                    continue;
                };
                log.lock().unwrap().push(request.clone());
                // The client may have gone away; that is its right.
                drop(write_answer(&mut connection, &request, answer(&request)));
            }
        });
        Self { endpoint, seen }
    }

    /// A hub with this file, as a small file is answered.
    fn with_file(bytes: Vec<u8>) -> Self {
        Self::start(move |request| file_answer(request, &bytes))
    }

    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    fn ranges(&self) -> Vec<usize> {
        let gets = self
            .requests()
            .into_iter()
            .filter(|request| request.method == "GET");
        gets.map(|request| request.start()).collect()
    }

    fn source(&self) -> HubSource {
        let ModelRef::Hub(address) = ModelRef::parse("hf:acme/tiny@v1/q8/m.gguf").unwrap() else {
            panic!("not a hub's file");
        };
        HubSource::new(
            address,
            HubConfig {
                endpoint: self.endpoint.clone(),
                token: None,
            },
        )
    }

    fn pull(&self, cache: &TempDir) -> Result<PulledModel, Error> {
        let store = Store::new(StoreConfig::new(cache.path()));
        store.pull_from(&self.source(), "m", None, &(), &AtomicBool::new(false))
    }
}

fn read_head(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next()?,
        path: words.next()?,
        ..Request::default()
    };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn write_answer(to: &mut TcpStream, request: &Request, answer: Answer) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status)?;
    write!(to, "content-length: {}\r\n", answer.body.len())?;
    for (name, value) in &answer.headers {
        write!(to, "{name}: {value}\r\n")?;
    }
    write!(to, "\r\n")?;
    if request.method != "HEAD" {
        to.write_all(&answer.body[..answer.sent])?;
    }
    to.shutdown(Shutdown::Write)
}

/// Serves ranges of a file, and its digest as its ETag.
fn file_answer(request: &Request, bytes: &[u8]) -> Answer {
    if request.path != PATH {
        return Answer::new(404, &[], b"no such file");
    }
    let etag = format!("\"{}\"", digest(bytes));
    match request.start() {
        0 => Answer::new(200, &[("etag", &etag)], bytes),
        start => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(
                206,
                &[("etag", &etag), ("content-range", &range)],
                &bytes[start..],
            )
        }
    }
}

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(Sha256::digest(bytes).into())
}

fn model() -> Vec<u8> {
    let body = (0..1_200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u8);
    b"GGUF".iter().copied().chain(body).collect()
}

fn part(cache: &TempDir) -> std::path::PathBuf {
    cache.path().join("models/m/m.gguf.part")
}

#[test]
fn a_whole_file_conforms() {
    let hub = Server::with_file(model());
    conformance::check(&hub.source(), &model());
    assert!(hub.requests().iter().all(|request| request.path == PATH));
}

#[test]
fn a_broken_connection_is_continued_where_it_broke() {
    let bytes = model();
    let hub = Server::start(move |request| file_answer(request, &bytes).cut_after(500_000));
    let pulled = hub.pull(&tempfile::tempdir().unwrap()).unwrap();
    assert_eq!(pulled.sha256, Some(digest(&model())));
    assert_eq!(hub.ranges(), [0, 500_000, 1_000_000]);
}

#[test]
fn a_later_pull_continues_an_ended_one() {
    let cache = tempfile::tempdir().unwrap();
    let bytes = model();
    let hub = Server::start(move |request| {
        let answer = file_answer(request, &bytes);
        if request.start() == 0 {
            answer.cut_after(500_000)
        } else {
            answer.cut_after(0)
        }
    });
    let error = hub.pull(&cache).unwrap_err();
    assert!(matches!(error, Error::HubTransport { .. }), "{error:?}");
    assert_eq!(fs::metadata(part(&cache)).unwrap().len(), 500_000);

    let well_again = Server::with_file(model());
    let pulled = well_again.pull(&cache).unwrap();
    assert_eq!(well_again.ranges(), [500_000]);
    assert!(fs::read(pulled.path).unwrap() == model());
    assert!(!part(&cache).exists());
}

#[test]
fn a_part_of_another_content_is_not_continued() {
    let cache = tempfile::tempdir().unwrap();
    let mut old = model();
    old[10] ^= 1;
    let hub = Server::start(move |request| {
        let answer = file_answer(request, &old);
        if request.start() == 0 {
            answer.cut_after(500_000)
        } else {
            answer.cut_after(0)
        }
    });
    hub.pull(&cache).unwrap_err();

    let changed = Server::with_file(model());
    let pulled = changed.pull(&cache).unwrap();
    assert_eq!(changed.ranges(), [0]);
    assert!(fs::read(pulled.path).unwrap() == model());
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let cache = tempfile::tempdir().unwrap();
    let bytes = model();
    let mut gets = 0;
    let hub = Server::start(move |request| {
        gets += usize::from(request.method == "GET");
        let whole = Request {
            range: None,
            ..request.clone()
        };
        let answer = file_answer(&whole, &bytes);
        if gets == 1 {
            answer.cut_after(500_000)
        } else {
            answer
        }
    });
    let pulled = hub.pull(&cache).unwrap();
    assert_eq!(hub.ranges(), [0, 500_000]);
    assert!(fs::read(pulled.path).unwrap() == model());
}

#[test]
fn bytes_that_are_not_what_was_announced_are_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let mut other = model();
    other[1_000_000] ^= 1;
    let hub = Server::start(move |request| {
        let announced = file_answer(request, &model());
        Answer {
            body: other.clone(),
            ..announced
        }
    });
    assert!(matches!(hub.pull(&cache), Err(Error::WrongDigest { .. })));
    assert!(!part(&cache).exists());
}

#[test]
fn a_large_file_comes_from_another_server_that_never_sees_the_token() {
    let bytes = model();
    let store = Server::start(move |request| {
        file_answer(
            &Request {
                path: PATH.to_owned(),
                ..request.clone()
            },
            &bytes,
        )
    });
    let blob = format!("{}/blobs/1?signature=x", store.endpoint);
    let hub = Server::start(move |request| {
        let etag = format!("\"{}\"", digest(&model()));
        let size = model().len().to_string();
        match request.path.as_str() {
            // The repository was renamed.
            PATH => Answer::new(
                307,
                &[("location", "/acme/small/resolve/v1/q8/m.gguf")],
                b"",
            ),
            "/acme/small/resolve/v1/q8/m.gguf" => Answer::new(
                302,
                &[
                    ("location", &blob),
                    ("x-linked-etag", &etag),
                    ("x-linked-size", &size),
                ],
                b"Found",
            ),
            _ => Answer::new(404, &[], b""),
        }
    });
    let mut source = hub.source();
    source.hub.token = Some(Secret::new("hf_secret"));
    conformance::check(&source, &model());
    assert!(
        hub.requests()
            .iter()
            .all(|seen| seen.token.as_deref() == Some("Bearer hf_secret"))
    );
    assert!(!store.requests().is_empty());
    assert!(store.requests().iter().all(|seen| seen.token.is_none()));
}

#[test]
fn refusals_say_what_was_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(|_| Answer::new(404, &[], b"no such file"));
    let error = hub.pull(&cache).unwrap_err();
    assert!(matches!(error, Error::HubStatus { status: 404, .. }));
    assert!(error.to_string().contains(PATH));

    let nameless = Server::start(|_| Answer::new(200, &[], b"GGUF"));
    assert!(matches!(
        nameless.pull(&cache),
        Err(Error::HubAnswer { .. })
    ));

    let endless = Server::start(|_| Answer::new(302, &[("location", PATH)], b""));
    assert!(matches!(endless.pull(&cache), Err(Error::HubAnswer { .. })));
    assert!(!cache.path().join("models/m").exists());
}

#[test]
fn an_unreachable_hub_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let hub = Server {
        endpoint,
        seen: Arc::default(),
    };
    let error = hub.pull(&tempfile::tempdir().unwrap()).unwrap_err();
    assert!(matches!(&error, Error::HubTransport { url, .. } if url.contains(PATH)));
}
