#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod bench;
mod config;
mod descriptors;
mod models;
mod serve;
mod settings;

use std::io::Write as _;

use anyhow::Result;
use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use tokio::runtime::{Builder, Runtime};

use crate::models::Interrupted;

fn main() -> ! {
    let cli = Cli::parse();
    let result = runtime(&cli.command)
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    let code = match result {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Interrupted>() {
            Some(Interrupted(signal)) => signal.exit_code(),
            None => {
                let _ = writeln!(std::io::stderr(), "error: {error:#}");
                1
            }
        },
    };
    // Waits for no thread: what had to end has ended, and after a second signal nothing has to.
    std::process::exit(code.into())
}

/// One thread for each core, but no more than asked for where they would be in a measurement.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Bench(args) if args.threads() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Command::Bench(args) = command {
        builder.worker_threads(args.threads());
    }
    builder.enable_all().build()
}

async fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Serve(args) => {
            let settings = config::load(&args)?;
            if args.print_config {
                print(&settings.print(config::is_secret))?;
                return Ok(0);
            }
            serve::run(settings.values, print).await
        }
        Command::Bench(args) => bench::run(*args, print).await,
        Command::Model(command) => {
            print(&models::run(command).await?)?;
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut script);
            print(&String::from_utf8(script)?)?;
            Ok(0)
        }
    }
}

/// Writes what the user asked for; a reader that has gone is no error of ours.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
