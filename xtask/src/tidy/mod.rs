//! `cargo xtask tidy`: the house rules that no other tool checks.
//!
//! A rule is a function from a [`Tree`] to findings. Rules read Rust as
//! tokens, so that comments and strings never match, and know which tokens
//! are test code.

mod code;
mod edges;
mod env_reads;
mod file_names;
mod generated;
mod ignored_tests;
mod places;
mod purity;
mod readmes;
mod spawns;
mod tree;
mod unsafe_code;

use std::fmt;

use anyhow::{Result, bail};

use self::tree::Tree;
use crate::workspace;

/// A broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line,
            message: message.into(),
        }
    }

    /// About a file as a whole.
    fn file(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(path, 1, message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("edges", edges::check),
    ("env_reads", env_reads::check),
    ("file_names", file_names::check),
    ("generated", generated::check),
    ("ignored_tests", ignored_tests::check),
    ("places", places::check),
    ("purity", purity::check),
    ("readmes", readmes::check),
    ("spawns", spawns::check),
    ("unsafe_code", unsafe_code::check),
];

/// Checks every rule and prints what is broken.
///
/// # Errors
/// If the tree cannot be read, or a rule is broken.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::load(&workspace::root())?;
    let mut findings = 0;
    for (name, rule) in RULES {
        let mut found = rule(&tree);
        found.sort();
        for finding in &found {
            println!("{finding} [{name}]");
        }
        findings += found.len();
    }
    if findings > 0 {
        bail!("tidy: {findings} findings");
    }
    println!(
        "tidy: {} rules, {} files, nothing found",
        RULES.len(),
        tree.files.len()
    );
    Ok(())
}
