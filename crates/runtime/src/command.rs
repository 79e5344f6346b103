//! What the processes of all components do in the same way: the command line of the planes, the
//! threads that carry tokens, what the user is shown, and how it ends.

mod execute;
mod io_threads;
mod planes_args;
mod surface;

pub use execute::{end, execute, print};
pub use io_threads::IoThreads;
pub use planes_args::PlanesArgs;
pub use surface::{Surface, guard};
