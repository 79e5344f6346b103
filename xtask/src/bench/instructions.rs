//! Instruction counts of named hot paths, the same on every run.
//!
//! A crate with hot paths has `benches/instructions.rs`, which lists them with
//! testkit. Each path runs once under callgrind, which collects only inside
//! testkit's `measured`. The counts are committed in `benches/instructions.json`
//! and may move by [`TOLERANCE`]; a change that moves one more writes it anew,
//! so that the review sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Metadata;
use crate::{process, workspace};

/// The committed counts.
const FILE: &str = "benches/instructions.json";
/// The bench target's name in every crate.
const TARGET: &str = "instructions";
/// By how much of the committed count a path may move, either way.
const TOLERANCE: f64 = 0.02;
/// The function inside which callgrind collects, as its pattern.
const MEASURED: &str = "*forebay_testkit*measured*";

/// How to count.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Commit what is measured instead of comparing with it.
    #[arg(long)]
    write: bool,
    /// Only paths whose name contains this (`tokens/`).
    filter: Option<String>,
}

/// Instructions by `crate/path`.
type Counts = BTreeMap<String, u64>;

/// Measures, then compares or writes.
///
/// # Errors
/// If a path cannot be measured, or has moved.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    let filter = args.filter.as_deref().unwrap_or("");
    let mut committed = read(&root)?;
    let measured = measure(&root, filter)?;
    if args.write {
        committed.retain(|name, _| !name.contains(filter));
        committed.extend(measured);
        return write(&root, &committed);
    }
    committed.retain(|name, _| name.contains(filter));
    compare(&committed, &measured)
}

/// Compares every path with its committed count; returns how many there are.
///
/// # Errors
/// As [`run`].
pub(crate) fn check() -> Result<usize> {
    let root = workspace::root();
    let measured = measure(&root, "")?;
    compare(&read(&root)?, &measured)?;
    Ok(measured.len())
}

fn compare(committed: &Counts, measured: &Counts) -> Result<()> {
    let mut moved = 0;
    let names: BTreeSet<_> = committed.keys().chain(measured.keys()).collect();
    for name in names {
        let verdict = match (committed.get(name), measured.get(name)) {
            (Some(&before), Some(&now)) => {
                let change = now as f64 / before as f64 - 1.0;
                println!("{name:<44} {now:>12} {:>+7.2} %", change * 100.0);
                (change.abs() > TOLERANCE).then_some("has moved")
            }
            (None, _) => Some("is not committed"),
            (_, None) => Some("is gone"),
        };
        if let Some(verdict) = verdict {
            println!("{name}: {verdict}");
            moved += 1;
        }
    }
    if moved > 0 {
        bail!("{moved} paths differ from {FILE}: `cargo xtask bench instructions --write`");
    }
    Ok(())
}

fn measure(root: &Path, filter: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for (name, binary) in build(root)? {
        let list = process::stdout(process::command(&binary, root).arg("--list"))?;
        for path in list.lines() {
            let full = format!("{name}/{path}");
            if full.contains(filter) {
                let count = callgrind(root, &binary, path)
                    .with_context(|| format!("cannot measure {full}"))?;
                counts.insert(full, count);
            }
        }
    }
    Ok(counts)
}

/// Builds the bench binaries as the tests are built, so that what both stand
/// on is built once; returns them with their crates' names.
///
/// That takes `--bins`: what build scripts and macros stand on is built with
/// other settings when no binary (this one) stands on it too.
fn build(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut binaries = Vec::new();
    let status = process::lines(
        process::cargo(root).args([
            "build",
            "--locked",
            "--workspace",
            "--all-features",
            "--bins",
            "--bench",
            TARGET,
            "--message-format=json-render-diagnostics",
        ]),
        |line| binaries.extend(Artifact::parse(line)),
    )?;
    if !status.success() {
        bail!("the benches do not build");
    }
    let metadata = Metadata::load(root)?;
    let name = |artifact: &Artifact| {
        let package = metadata
            .packages
            .iter()
            .find(|p| p.id == artifact.package_id);
        package.map(|package| package.short_name().to_owned())
    };
    Ok(binaries
        .into_iter()
        .filter_map(|artifact| Some((name(&artifact)?, artifact.executable?)))
        .collect())
}

/// A built bench, as cargo reports it.
#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    target: workspace::Target,
    executable: Option<PathBuf>,
}

impl Artifact {
    fn parse(line: &str) -> Option<Self> {
        let artifact: Self = serde_json::from_str(line).ok()?;
        (artifact.target.kind == ["bench"] && artifact.target.name == TARGET).then_some(artifact)
    }
}

fn callgrind(root: &Path, binary: &Path, path: &str) -> Result<u64> {
    let output = process::command("valgrind", root)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(binary)
        .arg(path)
        .stdout(Stdio::null())
        .output()
        .context("cannot start valgrind: run `cargo xtask setup`")?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}\n{log}", output.status);
    }
    match collected(&log) {
        Some(count @ 1..) => Ok(count),
        _ => bail!("callgrind collected nothing: is the path inside `measured`?\n{log}"),
    }
}

/// The count in callgrind's closing lines: `==1== Collected : 123`.
fn collected(log: &str) -> Option<u64> {
    let line = log
        .lines()
        .find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

fn read(root: &Path) -> Result<Counts> {
    match std::fs::read_to_string(root.join(FILE)) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("cannot read {FILE}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Counts::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {FILE}")),
    }
}

fn write(root: &Path, counts: &Counts) -> Result<()> {
    let file = root.join(FILE);
    let text = serde_json::to_string_pretty(counts).context("cannot write the counts as JSON")?;
    std::fs::create_dir_all(file.parent().expect("it is in a folder"))
        .and_then(|()| std::fs::write(&file, text + "\n"))
        .with_context(|| format!("cannot write {FILE}"))?;
    println!("wrote {} paths to {FILE}", counts.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        pairs
            .iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    }

    #[test]
    fn a_path_may_move_by_the_tolerance_and_no_more() {
        let before = counts(&[("a", 1000)]);
        assert!(compare(&before, &counts(&[("a", 1019)])).is_ok());
        assert!(compare(&before, &counts(&[("a", 981)])).is_ok());
        assert!(compare(&before, &counts(&[("a", 1021)])).is_err());
        assert!(compare(&before, &counts(&[("a", 979)])).is_err());
    }

    #[test]
    fn new_and_lost_paths_are_found() {
        let (one, two) = (counts(&[("a", 1)]), counts(&[("a", 1), ("b", 1)]));
        assert!(compare(&one, &two).is_err());
        assert!(compare(&two, &one).is_err());
        assert!(compare(&two, &two).is_ok());
    }

    #[test]
    fn reads_callgrinds_count() {
        let log = "==7== Events    : Ir\n==7== Collected : 1234\n==7==\n";
        assert_eq!(collected(log), Some(1234));
        assert_eq!(collected("==7== nothing"), None);
    }
}
