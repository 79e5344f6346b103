//! Pure crates decide and touch nothing: no async runtime or socket library
//! below them, no files, sockets, threads, clocks or environment in them.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::edges::{Kind, declared};
use super::tree::Tree;
use crate::workspace::Node;

/// Libraries that would bring an event loop or sockets.
const RUNTIMES: &[&str] = &[
    "async-io",
    "async-std",
    "hyper",
    "mio",
    "polling",
    "reqwest",
    "smol",
    "socket2",
    "tokio",
    "ureq",
];

const TOUCHES: &[&str] = &[
    "std :: env",
    "std :: fs",
    "std :: net",
    "std :: os",
    "std :: process",
    "std :: thread",
    "Instant :: now",
    "SystemTime :: now",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let declared = declared(tree);
    let nodes: BTreeMap<_, _> = (tree.metadata.resolve.iter())
        .flat_map(|resolve| &resolve.nodes)
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut findings = Vec::new();
    for package in tree.metadata.members() {
        let name = package.short_name();
        if declared.get(name).map(|row| row.kind) != Some(Kind::Pure) {
            continue;
        }
        let below = below(&package.id, &nodes);
        for other in &tree.metadata.packages {
            if RUNTIMES.contains(&other.name.as_str()) && below.contains(other.id.as_str()) {
                let manifest = package.manifest_path.display().to_string();
                let message = format!("`{name}` is pure and stands on `{}`", other.name);
                findings.push(Finding::file(manifest, message));
            }
        }
        let source = format!("{}/src/", package.folder().display());
        for (file, code) in tree
            .rust()
            .filter(|(file, _)| file.path.starts_with(&source))
        {
            for (line, touch) in code.find(TOUCHES) {
                let message = format!("`{}` in a pure crate", touch.replace(' ', ""));
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// Every package that normal dependencies lead to.
fn below<'a>(id: &'a str, nodes: &BTreeMap<&'a str, &'a Node>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![id];
    while let Some(from) = open.pop() {
        for dependency in nodes.get(from).iter().flat_map(|node| &node.deps) {
            let is_normal = dependency.dep_kinds.iter().any(|k| k.kind.is_none());
            if is_normal && reached.insert(dependency.pkg.as_str()) {
                open.push(&dependency.pkg);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{DependencyKind, NodeDependency, Package, Resolve};

    const TABLE: &str = "| `a` | pure | - |\n| `b` | shell | - |\n";

    fn tree(files: &[(&str, &str)], edges: &[(&str, &str, Option<&str>)]) -> Tree {
        let mut tree = Tree::of(files);
        let package = |name: &str| Package {
            id: name.into(),
            name: name.into(),
            manifest_path: format!("crates/{name}/Cargo.toml").into(),
            ..Package::default()
        };
        tree.metadata.packages = ["a", "b", "middle", "tokio"].map(package).into();
        tree.metadata.workspace_members = vec!["a".into(), "b".into()];
        let node = |(from, to, kind): &(&str, &str, Option<&str>)| Node {
            id: (*from).into(),
            deps: vec![NodeDependency {
                pkg: (*to).into(),
                dep_kinds: vec![DependencyKind {
                    kind: kind.map(str::to_owned),
                }],
            }],
        };
        tree.metadata.resolve = Some(Resolve {
            nodes: edges.iter().map(node).collect(),
        });
        tree
    }

    #[test]
    fn a_runtime_below_a_pure_crate_is_found() {
        let table = [("ARCHITECTURE.md", TABLE)];
        let through = [("a", "middle", None), ("middle", "tokio", None)];
        assert_eq!(check(&tree(&table, &through)).len(), 1);
        assert_eq!(check(&tree(&table, &[("a", "tokio", Some("dev"))])), []);
        assert_eq!(check(&tree(&table, &[("b", "tokio", None)])), []);
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found() {
        let clock = "use std::time::Instant;\nfn f() { Instant::now(); }";
        let tree = tree(
            &[
                ("ARCHITECTURE.md", TABLE),
                ("crates/a/src/lib.rs", clock),
                ("crates/a/src/tests.rs", clock),
                ("crates/b/src/lib.rs", clock),
            ],
            &[],
        );
        let found: Vec<_> = check(&tree).into_iter().map(|f| (f.path, f.line)).collect();
        assert_eq!(found, [("crates/a/src/lib.rs".to_owned(), 2)]);
    }
}
