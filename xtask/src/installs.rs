//! Every binary installs from its crate alone, and runs.
//!
//! `cargo install --path` as a user calls it: the crate's default features, the lockfile's
//! versions. Only the profile is ours, so that what others have built is used.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::{Metadata, Package};
use crate::{process, workspace};

/// Installs every published package that has a binary, and asks each binary for its version and
/// its help; returns how many there are.
///
/// # Errors
/// If one cannot be built, or does not run.
pub(crate) fn run() -> Result<usize> {
    let root = workspace::root();
    let metadata = Metadata::load(&root)?;
    let installed = metadata.target_directory.join("xtask/installed");
    let mut binaries = 0;
    for package in metadata.members() {
        let names = binaries_of(package);
        if names.is_empty() || !package.is_published() {
            continue;
        }
        let mut install = process::cargo(&root);
        install
            .args(["install", "--quiet", "--locked", "--debug", "--force"])
            .arg("--path")
            .arg(package.folder())
            .arg("--root")
            .arg(&installed)
            .arg("--target-dir")
            .arg(&metadata.target_directory);
        process::run(&mut install)?;
        for name in names {
            check(&installed.join("bin").join(name), &root, &package.version)
                .with_context(|| format!("{name}, as installed"))?;
            binaries += 1;
        }
    }
    Ok(binaries)
}

/// The names of a package's binaries.
fn binaries_of(package: &Package) -> Vec<&str> {
    let is_binary = |kinds: &[String]| kinds.iter().any(|kind| kind == "bin");
    let targets = package.targets.iter();
    let binaries = targets.filter(|target| is_binary(&target.kind));
    binaries.map(|target| &*target.name).collect()
}

/// Runs a binary on its own.
fn check(binary: &Path, root: &Path, version: &str) -> Result<()> {
    let said = process::stdout(process::command(binary, root).arg("--version"))?;
    ensure!(said.trim().ends_with(version), "it says {said:?}");
    let help = process::stdout(process::command(binary, root).arg("--help"))?;
    ensure!(help.contains("Usage:"), "it has no help");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::workspace::Target;

    use super::*;

    #[test]
    fn a_package_may_have_several_binaries_or_none() {
        let target = |name: &str, kind: &str| Target {
            name: name.into(),
            kind: vec![kind.into()],
        };
        let package = Package {
            targets: vec![target("a", "lib"), target("b", "bin"), target("c", "bin")],
            ..Package::default()
        };
        assert_eq!(binaries_of(&package), ["b", "c"]);
        assert!(binaries_of(&Package::default()).is_empty());
    }
}
