//! A frontend's process alone: `forebay frontend` without the rest of `forebay`.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};

use clap::Parser;
use forebay_frontend::command::{FrontendArgs, execute};
use forebay_observability::ErrorChain;

/// Answers for a Forebay deployment over an OpenAI-compatible API.
///
/// Every setting can be given in a file (--config), in the environment as FOREBAY_FRONTEND__KEY
/// with __ for dots (FOREBAY_FRONTEND__FRONTEND__PORT=9000), or as a flag (--set
/// frontend.port=9000); later ones win. --print-config lists them all.
#[derive(Debug, Parser)]
#[command(name = "forebay-frontend", version)]
struct Line {
    #[command(flatten)]
    args: FrontendArgs,
}

fn main() -> ! {
    let code = execute(&Line::parse().args, print).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(&error));
        1
    });
    std::process::exit(code.into())
}

/// A reader that has gone is no error of ours.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
