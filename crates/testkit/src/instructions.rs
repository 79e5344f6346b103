//! Hot paths by name, for counting instructions.
//!
//! The counter runs the binary once for each path and collects only while
//! [`measured`] is on the stack, so a path may prepare as much as it needs.

use std::hint::black_box;

/// A hot path: its name, and a function that prepares it and runs it once
/// inside [`measured`].
pub type HotPath<'a> = (&'a str, fn());

/// The `main` of a crate's `benches/instructions.rs`: with `--list` prints the
/// names, with a name runs that path.
///
/// # Panics
/// If the argument is neither.
#[allow(clippy::print_stdout, reason = "the list is the output")]
pub fn main(paths: &[HotPath<'_>]) {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "--list" {
        for (name, _) in paths {
            println!("{name}");
        }
        return;
    }
    let path = paths.iter().find(|(name, _)| *name == argument);
    let (_, run) = path.unwrap_or_else(|| panic!("no hot path `{argument}`: see --list"));
    run();
}

/// Runs what is to be counted. The result is kept from the optimiser, and
/// dropped outside the count by a caller that binds it.
#[inline(never)]
pub fn measured<T>(path: impl FnOnce() -> T) -> T {
    black_box(path())
}
