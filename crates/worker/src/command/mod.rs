//! The component: what `forebay worker` and `forebay-worker` do.

mod args;
mod banner;
mod error;
mod metrics;
mod run;
mod settings;

use std::io;

use forebay_runtime::command;

pub use args::WorkerArgs;
pub use error::Error;
pub use run::run;
pub use settings::WorkerSettings;

/// Reads the settings and carries out the command on threads of its own. What the user shall see
/// goes to `print`. Gives the exit code.
///
/// # Errors
///
/// [`Error`], if the worker does not start.
pub fn execute(
    args: &WorkerArgs,
    mut print: impl FnMut(&str) -> io::Result<()>,
) -> Result<u8, Error> {
    let settings = args.load()?;
    if args.settings.print_config {
        print(&settings.print(settings::is_secret))?;
        return Ok(0);
    }
    let settings = settings.values;
    settings.check()?;
    command::execute(settings.io_threads.get(), run(settings, print))
}
