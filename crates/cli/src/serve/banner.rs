//! What the user sees when it serves.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What is served, where, and what can be reached there.
pub(super) struct Banner<'a> {
    pub(super) version: &'a str,
    pub(super) model: &'a str,
    pub(super) context_length: u32,
    pub(super) load_time: Duration,
    pub(super) workers: usize,
    /// Of which kind they are.
    pub(super) engine: &'a str,
    /// How one of them is chosen.
    pub(super) router_mode: String,
    pub(super) address: SocketAddr,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            model,
            context_length,
            workers,
            engine,
            router_mode,
            address,
            ..
        } = self;
        let seconds = self.load_time.as_secs_f64();
        let workers = match workers {
            1 => format!("1 {engine} engine"),
            workers => format!("{workers} {engine} engines, chosen by {router_mode}"),
        };
        let reach = match address.ip() {
            ip if ip.is_loopback() => "this machine only",
            ip if ip.is_unspecified() => "every network of this machine, without authentication",
            _ => "the network of this address, without authentication",
        };
        let prompt = "What is the capital of France?";
        write!(
            f,
            r#"forebay {version}
model     {model}, {context_length} tokens of context, loaded in {seconds:.1} s
workers   {workers}
address   http://{address}

Try it:
  curl http://{address}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{prompt}"}}]}}'

Open surfaces:
  http://{address} ({reach})
    POST /v1/chat/completions  /v1/completions
    GET  /v1/models  /health  /live  /ready  /metrics  /openapi.json

Ctrl-C drains and stops.
"#
        )
    }
}
