//! Clients that send too much, too little or nothing, and leave: what they cost, and that nothing
//! of it stays.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use forebay_testkit::usage;

use crate::client::{connect, get, post, request, rest};
use crate::server::Server;

const TEXT: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const MIB: u64 = 1 << 20;

fn completion(prompt: &str, more: &str) -> String {
    format!(r#"{{"model": "small", "prompt": "{prompt}"{more}}}"#)
}

/// Tells what a client cost the server. Only memory is judged: time is the machine's.
fn cost<T>(server: &Server, what: &str, most_bytes: u64, act: impl FnOnce() -> T) -> T {
    usage::forget_peak(server.id());
    let (before, cpu) = (
        usage::resident_bytes(server.id()),
        usage::cpu_time(server.id()),
    );
    let begun = Instant::now();
    let result = act();
    let took = begun.elapsed();
    let cpu = usage::cpu_time(server.id()) - cpu;
    let grown = usage::peak_resident_bytes(server.id()).saturating_sub(before);
    eprintln!(
        "{what}: {took:?}, server CPU {cpu:?}, memory up to +{} KiB",
        grown >> 10
    );
    assert!(
        grown < most_bytes,
        "{what}: {grown} bytes more than {before}"
    );
    result
}

#[test]
fn what_is_too_long_costs_little() {
    let server = Server::start(&[]);
    let short = completion("x", r#", "max_tokens": 1"#);
    assert_eq!(post(server.address, TEXT, &short).status, 200, "it works");

    let prompt = completion(&"word ".repeat(2_000_000), "");
    let refused = cost(&server, "10 MB prompt", 40 * MIB, || {
        post(server.address, TEXT, &prompt)
    });
    refused.assert_error(400, "context_length_exceeded");
    assert!(
        refused.body.contains(r#""param":"prompt""#),
        "{}",
        refused.body
    );

    let head = format!("POST {TEXT} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n");
    let piece = vec![b' '; 1 << 20];
    for chunked in [false, true] {
        let what = match chunked {
            false => "100 MB body, announced",
            true => "100 MB body, chunked",
        };
        // What may be held of it is the limit for a body.
        let most = if chunked { 48 * MIB } else { 4 * MIB };
        let refused = cost(&server, what, most, || {
            let mut stream = connect(server.address);
            stream.write_all(head.as_bytes()).unwrap();
            match chunked {
                false => write!(stream, "content-length: {}\r\n\r\n", 100 << 20).unwrap(),
                true => write!(
                    stream,
                    "transfer-encoding: chunked\r\n\r\n{:x}\r\n",
                    100 << 20
                )
                .unwrap(),
            }
            for _ in 0..100 {
                stream.write_all(&piece).unwrap();
            }
            rest(&mut stream)
        });
        refused.assert_error(413, "body_too_large");
    }

    let head = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let refused = cost(&server, "100 KB of headers", 2 * MIB, || {
        let mut stream = connect(server.address);
        stream.write_all(head.as_bytes()).unwrap();
        rest(&mut stream)
    });
    refused.assert_error(431, "head_too_large");

    let deep = format!(
        r#"{{"model": "small", "prompt": {}"#,
        "[".repeat(10_000_000)
    );
    let refused = cost(&server, "10 MB of brackets", 24 * MIB, || {
        post(server.address, TEXT, &deep)
    });
    assert_eq!(refused.status, 413, "{}", refused.body);
    assert!(refused.body.len() < 500);
    assert_eq!(
        post(server.address, TEXT, &short).status,
        200,
        "it still works"
    );
}

/// Bodies within the limit that grow when they are read, or take long to refuse.
#[test]
fn what_is_made_to_swell_does_not() {
    let many = |value: &str, bytes: usize| {
        let list = format!("{value},").repeat(bytes / (value.len() + 1));
        format!("[{}]", list.trim_end_matches(','))
    };
    let most = 15 << 20;
    // Just under the most values, in the form that takes the most for its length.
    let maps = many(r#"{"a":1}"#, 410_000);
    let fields = |count: usize| {
        let fields: Vec<_> = (0..count).map(|n| format!(r#""{n}":1"#)).collect();
        format!("{{{}}}", fields.join(","))
    };
    let with = |field: &str| format!(r#"{{"model": "small", "prompt": "x", {field}}}"#);
    let chat = |fields: String| format!(r#"{{"model": "small", {fields}}}"#);
    let user = r#"{"role":"user","content":"x"}"#;
    let part = r#"{"type":"text","text":"x"}"#;
    let prompt = |prompt| format!(r#"{{"model": "small", "prompt": {prompt}}}"#);
    let cases = [
        ("prompts", TEXT, prompt(many(r#""a""#, most)), 413),
        ("fewer prompts", TEXT, prompt(many(r#""a""#, 3 << 20)), 413),
        ("token ids", TEXT, prompt(many("1", most)), 413),
        ("fewer token ids", TEXT, prompt(many("1", 3 << 19)), 400),
        (
            "lists of one token",
            TEXT,
            prompt(many("[1]", 3 << 18)),
            413,
        ),
        (
            "stop texts",
            TEXT,
            with(&format!(r#""stop": {}"#, many(r#""a""#, 3 << 20))),
            400,
        ),
        (
            "a field's name",
            TEXT,
            with(&format!(r#""{}": 1"#, "z".repeat(most))),
            400,
        ),
        (
            "messages",
            CHAT,
            chat(format!(r#""messages": {}"#, many(user, 1_300_000))),
            400,
        ),
        (
            "parts of a message",
            CHAT,
            chat(format!(
                r#""messages": [{{"role":"user","content":{}}}]"#,
                many(part, 1_150_000)
            )),
            400,
        ),
        (
            "a template's variables",
            CHAT,
            chat(format!(
                r#""messages": [{user}], "chat_template_kwargs": {{"k": {}}}"#,
                many("1", 2_090_000)
            )),
            400,
        ),
        (
            "a template's variables that are maps",
            CHAT,
            chat(format!(
                r#""messages": [{user}], "chat_template_kwargs": {{"k": {maps}}}"#
            )),
            400,
        ),
        (
            "a template's variables of many names",
            CHAT,
            chat(format!(
                r#""messages": [{user}], "chat_template_kwargs": {}"#,
                fields(260_000)
            )),
            400,
        ),
        (
            "unknown fields",
            TEXT,
            with(fields(260_000).trim_matches(['{', '}'])),
            400,
        ),
        (
            "logit biases",
            TEXT,
            with(&format!(r#""logit_bias": {}"#, fields(260_000))),
            400,
        ),
        (
            "more maps",
            CHAT,
            chat(format!(
                r#""messages": [{user}], "chat_template_kwargs": {{"k": {}}}"#,
                many(r#"{"a":1}"#, 4_000_000)
            )),
            413,
        ),
        (
            "a message's fields that are maps",
            CHAT,
            chat(format!(
                r#""messages": [{{"role":"user","content":"x","k":{maps}}}]"#
            )),
            200,
        ),
        (
            "tools",
            CHAT,
            chat(format!(r#""messages": [{user}], "tools": {maps}"#)),
            400,
        ),
    ];
    for (what, path, body, status) in cases {
        // Memory that an earlier one left would hide what this one takes.
        let server = Server::start(&[]);
        // As docs/operations.md says.
        let answer = cost(&server, what, 128 * MIB, || {
            post(server.address, path, &body)
        });
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert!(status == 200 || answer.body.len() < 500, "{what}");
    }
}

/// One round of every kind of client that does not do as it should.
fn storm(server: &Server) {
    let streamed = completion("Say it", r#", "max_tokens": 64, "stream": true"#);
    let whole = completion("Say it", r#", "max_tokens": 64, "n": 4"#);
    let refused = completion("x", r#", "n": -1"#);
    let garbage = "\x16\x03\x01 not HTTP\r\n\r\n".to_owned();
    let all = [streamed, whole, refused].map(|body| request(TEXT, &body));
    let mut left_open = Vec::new();
    for bytes in all.iter().chain([&garbage]) {
        let step = (bytes.len() / 20).max(1);
        // Leaves in the request.
        for sent in (0..=bytes.len()).step_by(step) {
            let mut stream = connect(server.address);
            stream.write_all(&bytes.as_bytes()[..sent]).unwrap();
        }
        // Leaves in the answer, with bytes unread.
        for received in [0, 1, 50, 500] {
            let mut stream = connect(server.address);
            stream.write_all(bytes.as_bytes()).unwrap();
            let _ = stream.take(received).read_to_end(&mut Vec::new());
        }
        // Sends half of it, and waits; another sends all, and a byte of the next.
        let mut half = connect(server.address);
        half.write_all(&bytes.as_bytes()[..bytes.len() / 2])
            .unwrap();
        let mut more = connect(server.address);
        more.write_all(bytes.as_bytes()).unwrap();
        let _ = more.write_all(b"G");
        left_open.extend([half, more]);
    }
    // Leaves in the middle of a long body.
    for _ in 0..10 {
        let mut stream = connect(server.address);
        let head = format!(
            "POST {TEXT} HTTP/1.1\r\ncontent-type: application/json\r\n\
             content-length: 900000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b' '; 300_000]).unwrap();
    }
    drop(left_open);
}

/// Tries until it goes well; says what was wrong if that takes too long.
fn await_that<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(wrong) => assert!(Instant::now() < deadline, "{wrong}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the server holds when it has no request, and no connection but the one that asks.
fn quiet(server: &Server) -> BTreeMap<String, i64> {
    await_that(|| {
        let held = server.held();
        let count = |name: &str| {
            let found = held.iter().filter(|(found, _)| found.contains(name));
            found.map(|(_, count)| count).sum::<i64>()
        };
        let nothing = ["requests_in_flight", "requests_running", "requests_waiting"];
        // What is done once at the start is over, too.
        match nothing.iter().all(|name| count(name) == 0) && count("kind=\"request\"") == 1 {
            true => Ok(held),
            false => Err(format!("{held:#?}")),
        }
    })
}

/// Waits until the server holds what it held `before`. A count that is new, of a task that had not
/// run yet, has to be none.
fn settle(server: &Server, before: &BTreeMap<String, i64>) {
    await_that(|| {
        let mut held = server.held();
        held.retain(|name, count| *count != 0 || before.contains_key(name));
        match held == *before {
            true => Ok(()),
            false => Err(format!("before: {before:#?}, now: {held:#?}")),
        }
    });
}

/// Storms, after each of which the server holds what it held before.
fn nothing_stays(server: &Server) {
    // What is made once for the process: threads, series of metrics.
    storm(server);
    let quiet = quiet(server);
    for counted in ["requests_in_flight", "booked_requests", "descriptors"] {
        let found = quiet.keys().any(|name| name.contains(counted));
        assert!(found, "{counted}: {quiet:?}");
    }
    for _ in 0..3 {
        storm(server);
        settle(server, &quiet);
    }
}

#[test]
fn nothing_stays_of_a_storm() {
    let server = Server::start(&[]);
    nothing_stays(&server);
    assert!(
        server
            .held()
            .contains_key("forebay_engine_kv_active_blocks")
    );
}

#[test]
fn nothing_stays_of_a_storm_over_many_workers() {
    nothing_stays(&Server::start_mockers(8));
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let server = Server::start(&["frontend.write_timeout_seconds=0.2"]);
    let quiet = quiet(&server);
    // Many requests, so that their answers are more than sockets hold.
    let body = completion(
        "x",
        r#", "max_tokens": 400, "n": 8, "stream": true, "ignore_eos": true"#,
    );
    let request = request(TEXT, &body).replace("connection: close\r\n", "");
    let mut stream = connect(server.address);
    stream.write_all(request.repeat(200).as_bytes()).unwrap();
    let ended = "connections_ended_total{end=\"write_timeout\"} 1";
    await_that(|| {
        let metrics = get(server.address, "/metrics").body;
        match metrics.contains(ended) {
            true => Ok(()),
            false => Err(metrics),
        }
    });
    settle(&server, &quiet);
    drop(stream);
}
