//! `cargo xtask bench`: what is measured and kept.

mod client;
mod cluster;
mod frontend;
mod instructions;
mod planes;
mod server;
mod speed;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use instructions::check as check_instructions;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// `forebay bench` beside an independent client, over the mocker, in release.
    Client(client::Args),
    /// How long until the others notice what happens to a process, a network or a service, in
    /// release.
    Faults(cluster::Args<6>),
    /// What a fleet of mockers takes to come together, and takes of the machine, in release.
    Fleet(cluster::Args<3>),
    /// What the frontend costs and adds, over the mocker, in release.
    Frontend(frontend::Args),
    /// Instructions of the named hot paths, compared with the committed ones.
    Instructions(instructions::Args),
    /// What the request planes cost, each beside its limit, in release.
    Planes(planes::Args),
    /// The native engine's tokens per second and times to the first token, in release.
    Speed,
}

/// Runs a bench.
///
/// # Errors
/// If it cannot run, or a committed number no longer holds.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Client(args) => client::run(args),
        Bench::Faults(args) => args.run("faults"),
        Bench::Fleet(args) => args.run("fleet"),
        Bench::Frontend(args) => frontend::run(args),
        Bench::Instructions(args) => instructions::run(args),
        Bench::Planes(args) => planes::run(args),
        Bench::Speed => speed::run(),
    }
}
