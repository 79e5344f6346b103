//! `cargo xtask bench fleet` and `cargo xtask bench faults`: clusters of processes.
//!
//! The measuring is in the `forebay` package's bench `cluster`, which starts its own servers; it
//! needs `etcd` and `nats-server`.

use anyhow::Result;

use crate::{process, setup, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args<const REPEATS: usize> {
    /// How often everything is measured.
    #[arg(long, default_value_t = REPEATS)]
    repeats: usize,
}

impl<const REPEATS: usize> Args<REPEATS> {
    /// Builds in release, measures and prints the table of `name`.
    ///
    /// # Errors
    /// If something does not build or run.
    pub(crate) fn run(&self, name: &str) -> Result<()> {
        setup::run()?;
        let repeats = self.repeats.to_string();
        process::run(
            process::cargo(&workspace::root())
                .args(["bench", "--locked", "--package", "forebay"])
                .args(["--features", "etcd", "--bench", "cluster"])
                .args(["--", name, "--repeats", &repeats]),
        )
    }
}
