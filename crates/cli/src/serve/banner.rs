//! What the user sees when it serves.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_frontend::command::client_surface;

use super::question::Question;

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
        let question = Question { address, model };
        let clients = client_surface(*address);
        write!(
            f,
            r#"forebay {version}
model     {model}, {context_length} tokens of context, loaded in {seconds:.1} s
workers   {workers}
address   http://{address}

Try it:
{question}
Open surfaces:
{clients}
Ctrl-C drains and stops.
"#
        )
    }
}
