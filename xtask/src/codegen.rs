//! `cargo xtask codegen`: Rust from `proto/`, without protoc.
//!
//! `proto/` is the published contract. `protocols` carries a copy of it, and
//! the code generated from it, so that its package builds alone; this command
//! makes both and tidy compares them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// The contract.
const PROTO: &str = "proto";
/// The copy inside the crate that uses it.
const COPY: &str = "crates/protocols/proto";
/// The generated code.
const GENERATED: &str = "crates/protocols/src/generated";

/// Files by their path from the workspace's root.
pub(crate) type Files = BTreeMap<String, String>;

/// The folders whose files this command owns.
pub(crate) const OWNED: &[&str] = &[COPY, GENERATED];

/// Writes the generated code and the copy of the contract, and removes what
/// no longer belongs there.
///
/// # Errors
/// If a proto file does not compile or a file cannot be written.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let files = generate(&root)?;
    for folder in OWNED {
        let folder = root.join(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
    }
    for (path, text) in &files {
        let to = root.join(path);
        let folder = to.parent().expect("a file has a folder");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&to, text))
            .with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// What [`run`] would write, without writing it.
///
/// # Errors
/// If a proto file does not compile.
pub(crate) fn generate(root: &Path) -> Result<Files> {
    let proto = root.join(PROTO);
    let sources = proto_files(&proto)?;
    if sources.is_empty() {
        bail!("no .proto file in {PROTO}/");
    }
    let mut files = Files::new();
    for source in &sources {
        let text = std::fs::read_to_string(proto.join(source))
            .with_context(|| format!("cannot read {}", source.display()))?;
        files.insert(format!("{COPY}/{}", source.display()), text);
    }

    let descriptors = protox::compile(&sources, [&proto])?;
    let out = tempfile::tempdir().context("cannot make a temporary folder")?;
    prost_build::Config::new()
        .out_dir(out.path())
        .compile_fds(descriptors)
        .context("cannot generate code")?;
    for entry in std::fs::read_dir(out.path()).context("cannot list the generated code")? {
        let entry = entry.context("cannot list the generated code")?;
        process::stdout(
            process::command("rustfmt", root)
                .args(["--edition", "2024", "--quiet"])
                .arg(entry.path()),
        )?;
        let text = std::fs::read_to_string(entry.path()).context("cannot read generated code")?;
        let name = entry.file_name();
        files.insert(format!("{GENERATED}/{}", name.to_string_lossy()), text);
    }
    Ok(files)
}

/// The `.proto` files under `folder`, as sorted paths from there.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let here = folder.join(&relative);
        let entries =
            std::fs::read_dir(&here).with_context(|| format!("cannot list {}", here.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", here.display()))?;
            let path = relative.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
