use std::error::Error;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;

use forebay_observability::ErrorChain;
use tokio::runtime::Builder;

/// Runs a command to its end on so many threads.
///
/// It waits for no thread after that: what had to end has ended, and after a second signal nothing
/// has to.
///
/// # Errors
///
/// What the command ended with, or that there are no threads for it.
pub fn execute<T, E: From<io::Error>>(
    threads: NonZeroUsize,
    command: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut builder = match threads {
        NonZeroUsize::MIN => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads.get()).enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// Writes what the user asked for to the standard output. A reader that has gone is no error of
/// ours.
///
/// # Errors
///
/// Any other that the system has.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Ends the process with the exit code of its command; with 1 after an error, which is told to the
/// user with its causes.
pub fn end<E: Error + 'static>(code: Result<u8, E>) -> ! {
    let code = code.unwrap_or_else(|error| {
        // Where even that cannot be written, the exit code has to do.
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(&error));
        1
    });
    std::process::exit(code.into())
}
