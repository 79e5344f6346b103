//! `cargo xtask bench fleet` and `cargo xtask bench faults`: clusters of processes.
//!
//! The measuring is in the `forebay` package's bench `cluster`.

use anyhow::Result;

use crate::{process, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args<const REPEATS: usize> {
    /// How often everything is started and measured.
    #[arg(long, default_value_t = REPEATS)]
    repeats: usize,
}

impl<const REPEATS: usize> Args<REPEATS> {
    /// Builds in release, measures and prints the table of `name`.
    ///
    /// # Errors
    /// If something does not build or run.
    pub(crate) fn run(&self, name: &str) -> Result<()> {
        let repeats = self.repeats.to_string();
        process::run(
            process::cargo(&workspace::root())
                .args(["bench", "--locked", "--package", "forebay"])
                .args(["--bench", "cluster", "--", name, "--repeats", &repeats]),
        )
    }
}
