//! A frontend's process alone: `forebay frontend` without the rest of `forebay`.
#![forbid(unsafe_code)]

use clap::Parser;
use forebay_frontend::command::{FrontendArgs, execute};
use forebay_runtime::command::{end, print};

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
    end(execute(&Line::parse().args, print))
}
