//! No test is switched off: what needs hardware or minutes is an xtask command.

use super::Finding;
use super::tree::Tree;

/// Fences of examples that rustdoc would not run.
const FENCES: &[&str] = &[concat!("```", "ignore"), concat!("```rust,", "ignore")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        for (line, _) in code.find_anywhere(&["# [ ignore"]) {
            findings.push(Finding::new(&file.path, line, "an ignored test"));
        }
    }
    let documented = |path: &str| path.ends_with(".rs") || path.ends_with("README.md");
    for file in tree.files.iter().filter(|file| documented(&file.path)) {
        if let Some(line) = FENCES.iter().find_map(|fence| file.line_of(fence)) {
            findings.push(Finding::new(
                &file.path,
                line,
                "an example that does not run",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_and_examples_are_found() {
        let example = format!("//! {}\n//! {}\n", FENCES[0], "```");
        let tree = Tree::of(&[
            (
                "crates/a/tests/a.rs",
                "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
            ),
            ("crates/a/src/lib.rs", &example),
            ("crates/a/src/fine.rs", "// #[ignore]\n#[test]\nfn f() {}"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| (f.path, f.line)).collect();
        assert_eq!(
            found,
            [
                ("crates/a/tests/a.rs".to_owned(), 2),
                ("crates/a/src/lib.rs".to_owned(), 1)
            ]
        );
    }
}
