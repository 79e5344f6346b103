//! `cargo xtask deny`: cargo-deny, at the version that setup pins.

use anyhow::{Result, bail};

use crate::{process, setup, workspace};

/// What to check.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// cargo-deny's checks; `advisories` fetches a database first.
    #[arg(default_values = ["licenses", "sources", "bans"])]
    checks: Vec<String>,
}

/// Runs cargo-deny over the whole workspace.
///
/// # Errors
/// If it is not installed, or finds something.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    let program = setup::python_bin(&root).join("cargo-deny");
    if !program.exists() {
        bail!("cargo-deny is not installed: run `cargo xtask setup`");
    }
    process::run(
        process::command(program, &root)
            .args(["--locked", "--log-level=error", "check"])
            .args(&args.checks),
    )
}
