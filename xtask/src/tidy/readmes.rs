//! A crate's README is its documentation: there, shown by the registry,
//! included by the crate, and with an example that runs.

use super::Finding;
use super::tree::Tree;

const INCLUDE: &str = "#![doc = include_str!(\"../README.md\")]";
const MSRV: &str = "1.95";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let published = tree
        .metadata
        .members()
        .into_iter()
        .filter(|p| p.is_published());
    for package in published {
        let folder = package.folder().display().to_string();
        let path = format!("{folder}/README.md");
        let Some(readme) = tree.file(&path) else {
            findings.push(Finding::file(path, "missing"));
            continue;
        };
        if package.readme.as_deref() != Some("README.md") {
            let manifest = package.manifest_path.display().to_string();
            findings.push(Finding::file(
                manifest,
                "`readme = \"README.md\"` is missing",
            ));
        }
        if !readme.text.contains(MSRV) {
            let message = format!("does not name the minimum Rust version, {MSRV}");
            findings.push(Finding::file(&path, message));
        }
        if !package.is_library() {
            continue;
        }
        if !readme
            .text
            .lines()
            .any(|line| line == "```rust" || line == "```")
        {
            findings.push(Finding::file(&path, "no example that runs"));
        }
        let root = format!("{folder}/src/lib.rs");
        let included = tree
            .file(&root)
            .is_some_and(|file| file.text.contains(INCLUDE));
        if !included {
            findings.push(Finding::file(root, format!("`{INCLUDE}` is missing")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Package, Target};

    const README: &str = "# a\n\n```rust\nassert!(true);\n```\n\nRust 1.95.\n";

    fn messages(readme: Option<&str>, lib: &str) -> Vec<String> {
        let mut files = vec![("crates/a/src/lib.rs", lib)];
        files.extend(readme.map(|text| ("crates/a/README.md", text)));
        let mut tree = Tree::of(&files);
        tree.metadata.workspace_members = vec!["a".into()];
        tree.metadata.packages = vec![Package {
            id: "a".into(),
            name: "forebay-a".into(),
            manifest_path: "crates/a/Cargo.toml".into(),
            readme: Some("README.md".into()),
            targets: vec![Target {
                name: "a".into(),
                kind: vec!["lib".into()],
            }],
            ..Package::default()
        }];
        check(&tree).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn a_sound_readme_passes() {
        assert_eq!(messages(Some(README), INCLUDE), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_found() {
        assert_eq!(messages(None, INCLUDE), ["missing"]);
        assert_eq!(messages(Some(README), "").len(), 1);
        assert_eq!(
            messages(Some("Rust 1.95."), INCLUDE),
            ["no example that runs"]
        );
        let text = README.replace("1.95", "1.90");
        assert_eq!(messages(Some(&text), INCLUDE).len(), 1);
    }
}
