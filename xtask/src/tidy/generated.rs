//! What codegen owns is what it would write.

use super::Finding;
use super::tree::Tree;
use crate::codegen;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(wanted) = &tree.generated else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (path, text) in wanted {
        match tree.file(path) {
            Some(file) if file.text == *text => {}
            Some(_) => findings.push(Finding::file(path, "stale: run `cargo xtask codegen`")),
            None => findings.push(Finding::file(path, "missing: run `cargo xtask codegen`")),
        }
    }
    for file in &tree.files {
        let is_owned = codegen::OWNED.iter().any(|folder| {
            let rest = file.path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        if is_owned && !wanted.contains_key(&file.path) {
            findings.push(Finding::file(
                &file.path,
                "left over: run `cargo xtask codegen`",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_missing_and_left_over_files_are_found() {
        let path = |name: &str| format!("{}/{name}", codegen::OWNED[0]);
        let (same, stale, gone, extra) = (path("a"), path("b"), path("c"), path("d"));
        let mut tree = Tree::of(&[(&same, "1"), (&stale, "1"), (&extra, "1"), ("other", "1")]);
        tree.generated = Some(
            [(&same, "1"), (&stale, "2"), (&gone, "3")]
                .map(|(path, text)| (path.clone(), text.to_owned()))
                .into(),
        );
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(found, [stale, gone, extra]);
    }
}
