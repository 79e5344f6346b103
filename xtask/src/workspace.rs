//! Where the workspace is and what is in it, as `cargo metadata` tells.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The prefix of our published packages: folder `crates/x`, package `forebay-x`.
const PREFIX: &str = "forebay-";

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .expect("xtask is a folder of the workspace")
        .to_owned()
}

/// What `cargo metadata` says, as far as we read it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) target_directory: PathBuf,
    pub(crate) resolve: Option<Resolve>,
}

/// One package, ours or not.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) readme: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as a manifest declares it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` (normal), `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// Something cargo builds.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// The resolved graph.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One package in the resolved graph.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDependency>,
}

/// An edge of the resolved graph.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NodeDependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// What kind of edge it is.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct DependencyKind {
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Reads the workspace at `root`, with the whole resolved graph.
    ///
    /// # Errors
    /// If cargo fails, for example because a manifest is broken.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let json = process::stdout(process::cargo(root).args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--locked",
        ]))?;
        serde_json::from_str(&json).context("cannot read what cargo metadata wrote")
    }

    /// The workspace's own packages, by name.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<_> = self
            .packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }
}

impl Package {
    /// Whether it is one of `examples/`: written as our users would write it,
    /// so the rules for our own crates are not for it.
    pub(crate) fn is_example(&self) -> bool {
        let parent = self.folder().parent();
        parent.is_some_and(|parent| parent.ends_with("examples"))
    }

    /// The name used in this repository: its folder's (`tokens`, `cli`).
    pub(crate) fn short_name(&self) -> &str {
        self.folder()
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or(&self.name)
    }

    /// The folder of its manifest.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }

    /// Whether it goes to the registry.
    pub(crate) fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|to| !to.is_empty())
    }

    /// Whether it has a library target.
    pub(crate) fn is_library(&self) -> bool {
        self.targets
            .iter()
            .any(|t| t.kind.iter().any(|k| k == "lib"))
    }
}

/// The short name of one of our packages, from the package's name.
pub(crate) fn short_name(package: &str) -> &str {
    match package {
        "forebay" => "cli",
        _ => package.strip_prefix(PREFIX).unwrap_or(package),
    }
}
