//! The component: what `forebay worker` and `forebay-worker` do.

mod args;
mod banner;
mod error;
mod metrics;
mod run;
mod settings;

use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::Builder;

pub use args::WorkerArgs;
pub use error::Error;
pub use run::run;
pub use settings::WorkerSettings;

/// Reads the settings and carries out the command on threads of its own. What the user shall see
/// goes to `print`. Gives the exit code.
///
/// It waits for no thread at the end: what had to end has ended, and after a second signal nothing
/// has to.
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
    let threads = settings.io_threads();
    let mut builder = match threads {
        NonZeroUsize::MIN => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads.get()).enable_all().build()?;
    let code = runtime.block_on(run(settings, print));
    runtime.shutdown_background();
    code
}
