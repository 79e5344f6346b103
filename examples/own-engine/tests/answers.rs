//! The example is started as a user would, asked over HTTP, and stopped.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// Ends with the test.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_answers_louder() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-engine"));
    let mut example = Example(command.arg("0").stderr(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    let stderr = example.0.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut address).unwrap();
    let address = address.trim().strip_prefix("http://").unwrap();
    let (address, _) = address.split_once('/').unwrap();

    let body = r#"{"model": "shout", "messages": [{"role": "user", "content": "hello"}]}"#;
    let mut connection = TcpStream::connect(address).unwrap();
    write!(
        connection,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "HELLO");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(answer["usage"]["completion_tokens"], 6);
}
