//! No tracked file names one machine's folders, or a registry's host.

use super::Finding;
use super::tree::Tree;

/// Absolute folders of some machine. Split, so that this file passes.
const FOLDERS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
];

/// Hosts that clients know themselves and mirrors replace.
const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("npmjs", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("repo.maven.apache", ".org"),
];

/// Cargo writes its registry's name here itself.
const WRITTEN_BY_CARGO: &str = "Cargo.lock";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|f| f.name() != WRITTEN_BY_CARGO) {
        for (text, line) in file.text.lines().zip(1..) {
            if let Some(folder) = FOLDERS.iter().find(|folder| starts_in(text, folder)) {
                let message = format!("`{folder}` is a folder of one machine");
                findings.push(Finding::new(&file.path, line, message));
            }
            if let Some(host) = HOSTS.iter().find(|host| text.contains(*host)) {
                let message = format!("`{host}` is a registry's host");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// Whether an absolute path in `text` starts with `folder`: what stands
/// before it is not itself a part of a path or an address.
fn starts_in(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~/}$*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_hosts_are_found() {
        let (folder, host) = (FOLDERS[0], HOSTS[0]);
        let tree = Tree::of(&[
            ("a.md", &format!("see {folder}me/x")),
            (
                "b.md",
                &format!("~/x and a{folder}x and https://host{folder}x"),
            ),
            ("c.toml", &format!("# from {host}")),
            ("Cargo.lock", &format!("source = {host}")),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(found, ["a.md", "c.toml"]);
    }
}
