//! Many connections at a time: what each costs, and what holds where the system allows few.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_testkit::usage;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{connect, get};
use crate::server::{FOREBAY, Server};

const MANY: usize = 10_000;

/// This process is the client, and needs as many descriptors as the server.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most > MANY as u64 + 100,
        "the hard limit of open files is {most}"
    );
}

fn until_open(server: &Server, connections: usize) {
    // The one that asks is open, too.
    let line = format!("forebay_frontend_connections {}", connections + 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = get(server.address, "/metrics").body;
        if metrics.lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < deadline, "not {line}: {metrics}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn each_bytes(before: u64, now: u64) -> u64 {
    now.saturating_sub(before) / MANY as u64
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_disturb_nobody() {
    raise_own_limit();
    // It inherits a low limit, as from a login shell, and has to raise that itself.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\"", FOREBAY]);
    let server = Server::start_by(limited, &[]);
    until_open(&server, 0);
    let before = usage::resident_bytes(server.id());

    let mut idle: Vec<TcpStream> = (0..MANY).map(|_| connect(server.address)).collect();
    until_open(&server, MANY);
    let fresh = each_bytes(before, usage::resident_bytes(server.id()));

    // Each is used once, and idle again.
    let request = b"GET /live HTTP/1.1\r\nhost: t\r\n\r\n";
    for stream in &mut idle {
        stream.write_all(request).unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
    }
    let used = each_bytes(before, usage::resident_bytes(server.id()));

    // And each begins a request that it does not end.
    for stream in &mut idle {
        stream
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\n")
            .unwrap();
    }
    assert_eq!(get(server.address, "/live").status, 200);
    let begun = each_bytes(before, usage::resident_bytes(server.id()));

    eprintln!("bytes a connection: {fresh} fresh, {used} used once, {begun} with half a head");
    assert!(fresh <= 6 << 10, "{fresh}");
    assert!(used <= 6 << 10, "{used}");
    assert!(begun <= 32 << 10, "{begun}");
    drop(idle);
    until_open(&server, 0);
}

#[test]
fn where_the_system_allows_few_files_there_are_fewer_connections() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\"", FOREBAY]);
    let server = Server::start_by(limited, &[]);
    let limit = "forebay_frontend_connections_limit 136";
    assert!(get(server.address, "/metrics").body.contains(limit));
    // More than the limit: the longest idle make room, and nobody is refused.
    let idle: Vec<_> = (0..300).map(|_| connect(server.address)).collect();
    for _ in 0..10 {
        assert_eq!(get(server.address, "/live").status, 200);
    }
    assert!(usage::descriptors(server.id()) <= 200);
    drop(idle);
}
