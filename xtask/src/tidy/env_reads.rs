//! The environment is read in `config.rs` files only.

use super::Finding;
use super::tree::Tree;

const READS: &[&str] = &[
    "env :: var",
    "env :: var_os",
    "env :: vars",
    "env :: vars_os",
    "env :: home_dir",
    "env :: {",
    "env :: *",
    "Env :: prefixed",
    "Env :: raw",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        if file.name() == "config.rs" {
            continue;
        }
        for (line, read) in code.find(READS) {
            let message = format!("`{}` outside a config.rs", read.replace(' ', ""));
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_found_outside_config() {
        let read = "use std::env;\nfn f() { env::var(\"X\"); }";
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", read),
            ("crates/a/src/config.rs", read),
            ("crates/a/tests/it.rs", read),
            (
                "crates/b/src/lib.rs",
                "fn f() { std::env::args(); env!(\"X\"); }",
            ),
            ("crates/c/src/lib.rs", "use std::env::{var};"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| (f.path, f.line)).collect();
        assert_eq!(
            found,
            [
                ("crates/a/src/lib.rs".to_owned(), 2),
                ("crates/c/src/lib.rs".to_owned(), 1)
            ]
        );
    }
}
