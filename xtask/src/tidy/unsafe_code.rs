//! Unsafe code is forbidden, except in the modules that are listed here.

use super::Finding;
use super::tree::Tree;

/// Crates with unsafe code, and the only module of each that has it.
const MODULES: &[(&str, &str)] = &[("native-engine", "kernel")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let members = tree.metadata.members().into_iter();
    for package in members.filter(|package| !package.is_example()) {
        let folder = package.folder().display().to_string();
        let source = format!("{folder}/src/");
        let excused = MODULES
            .iter()
            .find(|(name, _)| *name == package.short_name());
        let level = if excused.is_some() { "deny" } else { "forbid" };
        let lint = format!("# ! [ {level} ( unsafe_code )");
        for root in ["lib.rs", "main.rs"] {
            let path = format!("{source}{root}");
            let code = tree.file(&path).and_then(|file| file.code.as_ref());
            if code.is_some_and(|code| code.find_anywhere(&[&lint]).is_empty()) {
                let message = format!("`#![{level}(unsafe_code)]` is missing");
                findings.push(Finding::file(path, message));
            }
        }
        let Some((_, module)) = excused else {
            continue;
        };
        let (inside, root) = (format!("{source}{module}/"), format!("{source}{module}.rs"));
        for (file, code) in tree.rust() {
            let is_outside = file.path.starts_with(&source)
                && !file.path.starts_with(&inside)
                && file.path != root;
            if let Some((line, _)) = code
                .find_anywhere(&["unsafe"])
                .first()
                .filter(|_| is_outside)
            {
                let message = format!("unsafe code outside the module `{module}`");
                findings.push(Finding::new(&file.path, *line, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Package;

    fn paths(files: &[(&str, &str)]) -> Vec<String> {
        let mut tree = Tree::of(files);
        let package = |name: &str| Package {
            id: name.into(),
            name: format!("forebay-{name}"),
            manifest_path: format!("crates/{name}/Cargo.toml").into(),
            ..Package::default()
        };
        tree.metadata.packages = ["a", "native-engine"].map(package).into();
        tree.metadata.workspace_members = vec!["a".into(), "native-engine".into()];
        check(&tree).into_iter().map(|f| f.path).collect()
    }

    #[test]
    fn each_crate_states_its_level() {
        let (forbid, deny) = ("#![forbid(unsafe_code)]", "#![deny(unsafe_code)]");
        let (plain, engine) = ("crates/a/src/lib.rs", "crates/native-engine/src/lib.rs");
        assert_eq!(paths(&[(plain, forbid), (engine, deny)]), [""; 0]);
        assert_eq!(paths(&[(plain, deny), (engine, deny)]), [plain]);
        assert_eq!(paths(&[(plain, forbid), (engine, "")]), [engine]);
    }

    #[test]
    fn unsafe_code_stays_in_its_module() {
        let code = "fn f() { unsafe { g() } }";
        assert_eq!(
            paths(&[
                ("crates/native-engine/src/kernel/avx2.rs", code),
                ("crates/native-engine/src/model.rs", code),
            ]),
            ["crates/native-engine/src/model.rs"]
        );
    }
}
