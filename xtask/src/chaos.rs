//! `cargo xtask chaos`: the tests of a cluster again and again, with outages as long as real ones.

use anyhow::Result;

use crate::{process, setup, workspace};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long a service is away, in seconds.
    #[arg(long, default_value_t = 60)]
    outage: u64,
    /// How often everything runs.
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Runs the tests.
///
/// # Errors
/// If one fails, or does not build.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    for repeat in 1..=args.repeats {
        println!("{repeat} of {}", args.repeats);
        process::run(
            process::cargo(&workspace::root())
                .env("FOREBAY_TEST_OUTAGE_SECONDS", args.outage.to_string())
                .args(["test", "--locked", "--package", "forebay", "--all-features"])
                .args(["--test", "cluster"])
                .args(&args.filter),
        )?;
    }
    Ok(())
}
