#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod bench;
mod config;
mod models;
mod serve;

use std::io::{self, Write as _};

use anyhow::Result;
use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use forebay_frontend::command as frontend;
use forebay_worker::command as worker;
use tokio::runtime::Builder;

use crate::models::Interrupted;

fn main() -> ! {
    let code = match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Interrupted>() {
            Some(Interrupted(signal)) => signal.exit_code(),
            None => {
                let _ = writeln!(io::stderr(), "error: {error:#}");
                bench::exit_code(&error)
            }
        },
    };
    std::process::exit(code.into())
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Serve(args) => {
            let settings = config::load(&args)?;
            if args.settings.print_config {
                print(&settings.print(config::is_secret))?;
                return Ok(0);
            }
            let config = settings.values;
            config.check()?;
            drive(config.io_threads(), serve::run(config, print))
        }
        Command::Frontend(args) => Ok(frontend::execute(&args, print)?),
        Command::Worker(args) => Ok(worker::execute(&args, print)?),
        Command::Bench(args) => drive(args.threads(), bench::run(*args, print)),
        Command::Model(command) => drive(1, async {
            print(&models::run(command).await?)?;
            Ok(0)
        }),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut script);
            print(&String::from_utf8(script)?)?;
            Ok(0)
        }
    }
}

/// Runs a command to its end on so many threads. Waits for no thread after that: what had to end
/// has ended, and after a second signal nothing has to.
fn drive(threads: usize, command: impl Future<Output = Result<u8>>) -> Result<u8> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// Writes what the user asked for; a reader that has gone is no error of ours.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
