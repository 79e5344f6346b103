//! Every crate builds from its package alone, as its users get it.
//!
//! All packages are made without cargo's own verification, unpacked, and
//! checked together as one workspace: files left out of a package, paths out
//! of the crate and undeclared features fail as they would for a user, but
//! what the crates stand on is compiled once and shared with our own builds.

use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::{Metadata, Package};
use crate::{process, workspace};

/// Packages and checks every published crate; returns how many there are.
///
/// # Errors
/// If one cannot be packaged, unpacked or compiled.
pub(crate) fn check(root: &Path) -> Result<usize> {
    let metadata = Metadata::load(root)?;
    let members = metadata.members();
    let published: Vec<_> = members.iter().filter(|p| p.is_published()).collect();

    let mut package = process::cargo(root);
    package.args([
        "package",
        "--quiet",
        "--no-verify",
        "--locked",
        "--allow-dirty",
    ]);
    for member in &published {
        package.args(["--package", &member.name]);
    }
    process::run(&mut package)?;

    let unpacked = metadata.target_directory.join("xtask/packages");
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked).context("cannot remove the last unpacked packages")?;
    }
    std::fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot make {}", unpacked.display()))?;
    for member in &published {
        let file = format!("{}-{}.crate", member.name, member.version);
        // With the times of now: those in a package are always the same, and cargo would take the
        // last build of another content for this one's.
        process::stdout(
            process::command("tar", &unpacked)
                .arg("-xzmf")
                .arg(metadata.target_directory.join("package").join(file)),
        )?;
    }
    let manifest = manifest(&root.join("Cargo.toml"), &published)?;
    std::fs::write(unpacked.join("Cargo.toml"), manifest).context("cannot write the manifest")?;
    std::fs::copy(root.join("Cargo.lock"), unpacked.join("Cargo.lock"))
        .context("cannot copy Cargo.lock")?;

    process::run(
        process::cargo(&unpacked)
            .env("CARGO_TARGET_DIR", &metadata.target_directory)
            .args([
                "check",
                "--quiet",
                "--workspace",
                "--all-features",
                "--offline",
            ]),
    )?;
    Ok(published.len())
}

/// A workspace of the unpacked packages, each standing in for the registry's.
///
/// Profiles are taken over from our own manifest, or everything would be
/// compiled once more.
fn manifest(ours: &Path, packages: &[&&Package]) -> Result<String> {
    let folders: Vec<_> = packages
        .iter()
        .map(|p| (p.name.as_str(), format!("{}-{}", p.name, p.version)))
        .collect();
    let mut text = String::from("[workspace]\nresolver = \"3\"\nmembers = [\n");
    for (_, folder) in &folders {
        text += &format!("    \"{folder}\",\n");
    }
    text += "]\n\n[patch.crates-io]\n";
    for (name, folder) in &folders {
        text += &format!("{name} = {{ path = \"{folder}\" }}\n");
    }
    let ours = std::fs::read_to_string(ours).context("cannot read our manifest")?;
    text += "\n";
    text += &profiles(&ours);
    Ok(text)
}

/// The `[profile...]` tables of a manifest.
fn profiles(manifest: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.");
        }
        if inside {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// Runs [`check`] on this workspace.
///
/// # Errors
/// As [`check`].
pub(crate) fn run() -> Result<usize> {
    check(&workspace::root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_profiles_are_taken_over() {
        let manifest = "[workspace]\na = 1\n\n[profile.dev]\nb = 1\n[lints]\nc = 1\n[profile.dev.package.\"*\"]\nd = 1\n";
        assert_eq!(
            profiles(manifest),
            "[profile.dev]\nb = 1\n[profile.dev.package.\"*\"]\nd = 1\n"
        );
    }
}
