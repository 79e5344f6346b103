//! A worker's process alone: `forebay worker` without the rest of `forebay`.
#![forbid(unsafe_code)]

use clap::Parser;
use forebay_runtime::command::{end, print};
use forebay_worker::command::{WorkerArgs, execute};

/// Puts LLM engines of this machine into a Forebay deployment.
///
/// Every setting can be given in a file (--config), in the environment as FOREBAY_WORKER__KEY with
/// __ for dots (FOREBAY_WORKER__STATUS__PORT=9000), or as a flag (--set status.port=9000); later
/// ones win. --print-config lists them all.
#[derive(Debug, Parser)]
#[command(name = "forebay-worker", version)]
struct Line {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ! {
    end(execute(&Line::parse().args, print))
}
