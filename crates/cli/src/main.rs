#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod bench;
mod config;
mod models;
mod serve;

use std::io::{self, Write as _};
use std::num::NonZeroUsize;

use anyhow::Result;
use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use forebay_frontend::command as frontend;
use forebay_runtime::command::{execute, print};
use forebay_worker::command as worker;

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
            execute(config.io_threads.get(), serve::run(config, print))
        }
        Command::Frontend(args) => Ok(frontend::execute(&args, print)?),
        Command::Worker(args) => Ok(worker::execute(&args, print)?),
        Command::Bench(args) => execute(args.threads(), bench::run(*args, print)),
        Command::Model(command) => execute(NonZeroUsize::MIN, async {
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
