//! What the rules look at, loaded once.

use std::path::Path;

use anyhow::{Context, Result};

use super::code::Code;
use crate::codegen;
use crate::process;
use crate::workspace::Metadata;

/// The repository: its files, its packages, and what codegen would write.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    pub(super) metadata: Metadata,
    /// `None` where there is no contract to generate from.
    pub(super) generated: Option<codegen::Files>,
}

/// One text file.
pub(super) struct File {
    /// From the root, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// For Rust.
    pub(super) code: Option<Code>,
}

impl Tree {
    /// Reads the tracked files (and those about to be: everything that git
    /// does not ignore), the packages, and the generated code.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let list = process::stdout(process::command("git", root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files = Vec::new();
        for path in list.split_terminator('\0') {
            // A file that git knows but that is gone, and bytes that are no
            // text, have nothing to check.
            let Ok(bytes) = std::fs::read(root.join(path)) else {
                continue;
            };
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            files.push(File::new(path, text)?);
        }
        let mut metadata = Metadata::load(root)?;
        for package in &mut metadata.packages {
            if let Ok(relative) = package.manifest_path.strip_prefix(root) {
                package.manifest_path = relative.to_owned();
            }
        }
        Ok(Self {
            files,
            metadata,
            generated: Some(codegen::generate(root)?),
        })
    }

    /// The file at `path`, from the root.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files, with their code.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&File, &Code)> {
        self.files
            .iter()
            .filter_map(|file| Some((file, file.code.as_ref()?)))
    }

    /// A made-up tree without packages, for the tests of rules.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| File::new(path, (*text).to_owned()).expect("it is Rust"))
                .collect(),
            ..Self::default()
        }
    }
}

impl File {
    fn new(path: &str, text: String) -> Result<Self> {
        let code = if path.ends_with(".rs") {
            Some(
                Code::parse(&text, is_test_path(path))
                    .with_context(|| format!("cannot read {path} as Rust"))?,
            )
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            text,
            code,
        })
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The number of the first line that contains `needle`.
    pub(super) fn line_of(&self, needle: &str) -> Option<usize> {
        let index = self.text.lines().position(|line| line.contains(needle))?;
        Some(index + 1)
    }
}

/// Whether all code of the file is tests, benches, examples or our own tools.
fn is_test_path(path: &str) -> bool {
    let mut parts: Vec<_> = path.split('/').collect();
    let name = parts.pop().unwrap_or("");
    name == "tests.rs"
        || parts
            .iter()
            .any(|part| ["tests", "benches", "examples", "xtask", "testkit"].contains(part))
}
