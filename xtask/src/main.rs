//! The workspace's own commands, run as `cargo xtask <command>`.
//!
//! What a developer or CI does here that plain cargo does not: install what
//! the tests need, run every kind of test and count them, check the house
//! rules, remake generated code, and keep instruction counts.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line tool talks on stdout")]

mod bench;
mod chaos;
mod codegen;
mod counts;
mod deny;
mod installs;
mod packages;
mod process;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workspace's own commands.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests and checks need, or say what to install.
    Setup,
    /// Check the house rules: crate edges, purity, docs, spawns, generated code.
    Tidy,
    /// Remake the generated code from `proto/`.
    Codegen,
    /// Check licences, sources and bans with cargo-deny.
    Deny(deny::Args),
    /// Run the tests: all of them, or those that match.
    Test(test::Args),
    /// Run the cluster's tests with long outages, as often as wanted.
    Chaos(chaos::Args),
    /// Measure; without a bench's name, all of them.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Tidy => tidy::run(),
        Command::Codegen => codegen::run(),
        Command::Deny(args) => deny::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
