//! `cargo xtask bench planes`: what the request planes cost, each beside its limit.
//!
//! The measuring is in `runtime`'s bench of this name, which starts its own servers; it needs
//! `nats-server`.

use anyhow::Result;

use crate::{process, setup, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each row is measured.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
}

/// Builds in release, measures and prints the table.
///
/// # Errors
/// If something does not build or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let repeats = args.repeats.to_string();
    process::run(
        process::cargo(&workspace::root())
            .args(["bench", "--locked", "--package", "forebay-runtime"])
            .args(["--features", "nats,tcp", "--bench", "planes"])
            .args(["--", "--repeats", &repeats]),
    )
}
