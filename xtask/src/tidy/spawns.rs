//! Tasks are spawned through `runtime`'s `Tasks`, and threads in few places.

use super::Finding;
use super::tree::Tree;

const SPAWNS: &[&str] = &[
    "tokio :: spawn",
    "task :: spawn",
    "task :: spawn_blocking",
    "task :: spawn_local",
    "tokio :: task :: JoinSet",
    "TaskTracker",
    "thread :: Builder",
    "thread :: scope",
    "thread :: spawn",
    // What is imported one by one would be used without a path to see.
    "std :: thread :: {",
];

/// A place that may spawn, and why.
struct Place {
    path: &'static str,
    reason: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        path: "crates/runtime/src/tasks.rs",
        reason: "`Tasks` is what everything else spawns through",
    },
    Place {
        path: "crates/native-engine/src/kernel/sync.rs",
        reason: "the kernel's threads share loops of microseconds, below any runtime",
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for (file, code) in tree.rust() {
        let spawns = code.find(SPAWNS);
        if !spawns.is_empty() && PLACES.iter().any(|place| place.path == file.path) {
            used.push(file.path.as_str());
            continue;
        }
        for (line, spawn) in spawns {
            let message = format!("a bare `{}`: use runtime's Tasks", spawn.replace(' ', ""));
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    for place in PLACES
        .iter()
        .filter(|place| tree.file(place.path).is_some())
    {
        if !used.contains(&place.path) {
            let message = format!("spawns no more, but is excused because {}", place.reason);
            findings.push(Finding::file(place.path, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_spawns_are_found_outside_their_places() {
        let spawn = "fn f() { tokio::spawn(async {}); std::thread::spawn(|| {}); }";
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", spawn),
            (PLACES[0].path, spawn),
            ("crates/a/tests/it.rs", spawn),
            ("crates/b/src/lib.rs", "use std::thread::{Builder, sleep};"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.path).collect();
        let (a, b) = ("crates/a/src/lib.rs", "crates/b/src/lib.rs");
        assert_eq!(found, [a, a, b]);
    }

    #[test]
    fn an_excuse_that_is_not_needed_is_found() {
        assert_eq!(check(&Tree::of(&[(PLACES[0].path, "")])).len(), 1);
    }
}
