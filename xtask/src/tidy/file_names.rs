//! No file or folder is named for having no idea of its own.

use super::Finding;
use super::tree::Tree;

const BANNED: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils", "v2"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let rust = tree.files.iter().filter(|file| file.code.is_some());
    rust.filter_map(|file| {
        let mut parts = file.path.trim_end_matches(".rs").split('/');
        let part = parts.find(|part| BANNED.contains(part))?;
        let message = format!("`{part}` says nothing: name what is in it");
        Some(Finding::file(&file.path, message))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_names_are_found() {
        let tree = Tree::of(&[
            ("crates/a/src/utils.rs", ""),
            ("crates/a/src/v2/index.rs", ""),
            ("crates/a/src/utilisation.rs", ""),
            ("proto/v2/a.proto", ""),
        ]);
        assert_eq!(check(&tree).len(), 2);
    }
}
