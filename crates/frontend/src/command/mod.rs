//! The component: what `forebay frontend` and `forebay-frontend` do.

mod args;
mod banner;
mod client_surface;
mod descriptors;
mod error;
mod run;
mod settings;

use std::io;

use forebay_runtime::command;

pub use args::{FrontendArgs, ROUTER_MODES};
pub use client_surface::client_surface;
pub use descriptors::make_room;
pub use error::Error;
pub use run::run;
pub use settings::FrontendSettings;

/// Reads the settings and carries out the command on threads of its own. What the user shall see
/// goes to `print`. Gives the exit code.
///
/// # Errors
///
/// [`Error`], if the frontend does not start.
pub fn execute(
    args: &FrontendArgs,
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
