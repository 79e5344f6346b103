//! `cargo xtask bench fleet`: 1,000 mockers in 10 processes behind 10 frontends.
//!
//! The measuring is in the bench of this name of the `forebay` package.

use anyhow::Result;

use crate::{process, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the fleet is started and measured.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
}

/// Builds in release, measures and prints the table.
///
/// # Errors
/// If something does not build or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let repeats = args.repeats.to_string();
    process::run(
        process::cargo(&workspace::root())
            .args(["bench", "--locked", "--package", "forebay"])
            .args(["--bench", "fleet", "--", "--repeats", &repeats]),
    )
}
