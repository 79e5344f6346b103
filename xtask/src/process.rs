//! Child processes: shown before they run, and an error when they fail.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// A command that runs in `dir` with no standard input.
pub(crate) fn command(program: impl AsRef<OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// The cargo that runs us, in `dir`.
pub(crate) fn cargo(dir: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(program, dir);
    // Cargo told us what package we are. Some build scripts take that for
    // theirs, and would run again whenever cargo is called by us.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Shows and runs `command`.
///
/// # Errors
/// If it cannot start or ends with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    succeeded(status, &line)
}

/// Runs `command` and returns what it wrote to standard output.
///
/// # Errors
/// As [`run`], and if the output is not UTF-8.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let line = show(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    succeeded(output.status, &line)?;
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something not UTF-8"))
}

/// Shows and runs `command`, and gives each line of its standard output to
/// `each`. A child that fails is not an error here: its status says so.
///
/// # Errors
/// If it cannot start or its output cannot be read.
pub(crate) fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let line = show(command);
    println!("$ {line}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let pipe = child.stdout.take().expect("stdout was just piped");
    for bytes in BufReader::new(pipe).split(b'\n') {
        let bytes = bytes.with_context(|| format!("cannot read from `{line}`"))?;
        each(&String::from_utf8_lossy(&bytes));
    }
    child
        .wait()
        .with_context(|| format!("cannot wait for `{line}`"))
}

fn succeeded(status: ExitStatus, line: &str) -> Result<()> {
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

fn show(command: &Command) -> String {
    let mut words = vec![
        Path::new(command.get_program())
            .file_name()
            .unwrap_or(command.get_program())
            .to_string_lossy(),
    ];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}
