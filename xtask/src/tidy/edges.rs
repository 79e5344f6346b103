//! The crates' edges are those that ARCHITECTURE.md declares.
//!
//! Both ways: an undeclared edge and a declared one that no crate has are
//! findings, so the table is the graph. Optional and build dependencies are
//! edges. A dev-dependency may go to what the crate may reach anyway, and to
//! the unpublished crates.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::tree::Tree;
use crate::workspace::{Package, short_name};

const TABLE: &str = "ARCHITECTURE.md";

/// What the table says about one crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    line: usize,
    edges: BTreeSet<String>,
}

/// The table's second column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Decides, and touches nothing outside.
    Pure,
    /// Talks to the world.
    Shell,
    /// Not published: tools and test support.
    Unpublished,
}

/// Reads the table whose rows are ``| `crate` | kind | `edge`, `edge` |``.
pub(super) fn declared(tree: &Tree) -> BTreeMap<String, Declared> {
    let text = tree.file(TABLE).map_or("", |file| &file.text);
    let rows = text.lines().zip(1..).filter_map(|(row, line)| {
        let mut cells = row.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = match cells.next()? {
            "pure" => Kind::Pure,
            "shell" => Kind::Shell,
            "unpublished" => Kind::Unpublished,
            _ => return None,
        };
        let edges = cells.next()?.split('`').skip(1).step_by(2);
        let edges = edges.map(str::to_owned).collect();
        Some((name.to_owned(), Declared { kind, line, edges }))
    });
    rows.collect()
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let declared = declared(tree);
    let mut members = tree.metadata.members();
    members.retain(|package| !package.is_example());
    let names: BTreeSet<_> = members.iter().map(|package| package.short_name()).collect();
    let mut findings = Vec::new();
    for package in &members {
        check_package(package, &names, &declared, &mut findings);
    }
    for (name, row) in &declared {
        if !names.contains(name.as_str()) {
            findings.push(Finding::new(
                TABLE,
                row.line,
                format!("there is no crate `{name}`"),
            ));
        }
    }
    findings
}

fn check_package(
    package: &Package,
    names: &BTreeSet<&str>,
    declared: &BTreeMap<String, Declared>,
    findings: &mut Vec<Finding>,
) {
    let name = package.short_name();
    let manifest = package.manifest_path.display().to_string();
    let Some(row) = declared.get(name) else {
        findings.push(Finding::file(
            manifest,
            format!("`{name}` has no row in {TABLE}"),
        ));
        return;
    };
    if (row.kind == Kind::Unpublished) == package.is_published() {
        let message = format!("`{name}`: {TABLE} and `publish` disagree");
        findings.push(Finding::file(&manifest, message));
    }
    let mut unused = row.edges.clone();
    for dependency in &package.dependencies {
        let to = short_name(&dependency.name);
        if !names.contains(to) || to == name {
            continue;
        }
        let kind = declared.get(to).map(|row| row.kind);
        if dependency.kind.as_deref() == Some("dev") {
            if kind != Some(Kind::Unpublished) && !reachable(name, declared).contains(to) {
                let message = format!("tests of `{name}` may not use `{to}`");
                findings.push(Finding::file(&manifest, message));
            }
            continue;
        }
        unused.remove(to);
        if !row.edges.contains(to) {
            let message = format!("`{name}` may not use `{to}`: {TABLE} has no such edge");
            findings.push(Finding::file(&manifest, message));
        } else if row.kind == Kind::Pure && kind != Some(Kind::Pure) {
            let message = format!("`{name}` is pure and uses `{to}`, which is not");
            findings.push(Finding::file(&manifest, message));
        }
    }
    for to in unused {
        let message = format!("`{name}` does not use `{to}`");
        findings.push(Finding::new(TABLE, row.line, message));
    }
}

/// Every crate that declared edges lead to from `name`.
fn reachable<'a>(name: &'a str, declared: &'a BTreeMap<String, Declared>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![name];
    while let Some(from) = open.pop() {
        for to in declared.get(from).iter().flat_map(|row| &row.edges) {
            if reached.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    const TEXT: &str = "
| crate | kind | may use |
|---|---|---|
| `a` | pure | - |
| `b` | shell | `a` |
| `c` | shell | `b` |
| `kit` | unpublished | - |
";

    fn package(name: &str, edges: &[(&str, Option<&str>)]) -> Package {
        Package {
            id: name.into(),
            name: format!("forebay-{name}"),
            manifest_path: format!("crates/{name}/Cargo.toml").into(),
            publish: (name == "kit").then(Vec::new),
            dependencies: edges
                .iter()
                .map(|(to, kind)| Dependency {
                    name: format!("forebay-{to}"),
                    kind: kind.map(str::to_owned),
                })
                .collect(),
            ..Package::default()
        }
    }

    fn messages(text: &str, packages: Vec<Package>) -> Vec<String> {
        let mut tree = Tree::of(&[(TABLE, text)]);
        tree.metadata.workspace_members = packages.iter().map(|p| p.id.clone()).collect();
        tree.metadata.packages = packages;
        check(&tree).into_iter().map(|f| f.message).collect()
    }

    fn sound() -> Vec<Package> {
        vec![
            package("a", &[("kit", Some("dev"))]),
            package("b", &[("a", None)]),
            package("c", &[("b", None), ("a", Some("dev"))]),
            package("kit", &[]),
        ]
    }

    #[test]
    fn the_declared_graph_passes() {
        assert_eq!(messages(TEXT, sound()), [""; 0]);
    }

    #[test]
    fn an_undeclared_edge_is_found_whatever_its_kind() {
        for kind in [None, Some("build"), Some("dev")] {
            let mut packages = sound();
            packages[1] = package("b", &[("a", None), ("c", kind)]);
            assert_eq!(messages(TEXT, packages).len(), 1, "{kind:?}");
        }
    }

    #[test]
    fn a_declared_edge_that_is_gone_is_found() {
        let mut packages = sound();
        packages[2] = package("c", &[]);
        assert_eq!(messages(TEXT, packages), ["`c` does not use `b`"]);
    }

    #[test]
    fn a_pure_crate_may_not_use_a_shell() {
        let text = TEXT.replace("| `a` | pure |", "| `a` | shell |");
        let text = text.replace("| `b` | shell |", "| `b` | pure |");
        assert_eq!(
            messages(&text, sound()),
            ["`b` is pure and uses `a`, which is not"]
        );
    }

    #[test]
    fn every_crate_has_a_row_and_every_row_a_crate() {
        let mut packages = sound();
        packages.push(package("d", &[]));
        assert_eq!(
            messages(TEXT, packages),
            ["`d` has no row in ARCHITECTURE.md"]
        );
        let text = TEXT.to_owned() + "| `d` | pure | - |\n";
        assert_eq!(messages(&text, sound()), ["there is no crate `d`"]);
    }

    #[test]
    fn kind_and_publish_agree() {
        let text = TEXT.replace("| `a` | pure |", "| `a` | unpublished |");
        assert_eq!(
            messages(&text, sound()),
            ["`a`: ARCHITECTURE.md and `publish` disagree"]
        );
    }
}
