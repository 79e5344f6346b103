//! `cargo xtask test`: brings what the tests need, runs them, counts them.
//!
//! One feature set and one profile for everything, so that nothing is built
//! twice: all features of the whole workspace, in the dev profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::counts::Counts;
use crate::{bench, installs, packages, process, setup, workspace};

/// The model that tests use, by the name that `forebay model` knows.
const MODEL: &str = "smollm2-135m";

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only Rust tests whose name contains this.
    filter: Option<String>,
    /// Only Rust tests of these packages (`-p forebay-tokens`).
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Only these parts; without it all, or `rust` with a filter or a package.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,
}

/// The parts of the tests, in the order they run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `cargo test`: unit tests, integration tests, examples built, doctests.
    Rust,
    /// Clients in Python against the real binary.
    Python,
    /// Every crate built from its package.
    Packages,
    /// Every binary installed from its crate, and run.
    Installs,
    /// Instruction counts against the committed ones.
    Instructions,
}

impl Args {
    fn parts(&self) -> Vec<Part> {
        match self.only.as_slice() {
            [] if self.filter.is_some() || !self.packages.is_empty() => vec![Part::Rust],
            [] => Part::value_variants().to_vec(),
            only => only.to_vec(),
        }
    }
}

/// Runs the tests and prints how many passed.
///
/// # Errors
/// If one fails, if none ran, or if in CI one was skipped.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let root = workspace::root();
    let parts = args.parts();
    let mut counts = Counts::default();

    if parts.contains(&Part::Rust) || parts.contains(&Part::Python) {
        let tests = Tests::build(&root, &args.packages)?;
        if parts.contains(&Part::Rust) {
            counts += tests.rust(args.filter.as_deref())?;
        }
        if parts.contains(&Part::Python) {
            counts += tests.python()?;
        }
    }
    if parts.contains(&Part::Packages) {
        counts += part("packages", packages::run());
    }
    if parts.contains(&Part::Installs) {
        counts += part("installs", installs::run());
    }
    if parts.contains(&Part::Instructions) {
        counts += part("instructions", bench::check_instructions());
    }

    let outcome = if counts.failed == 0 { "ok" } else { "FAILED" };
    let Counts {
        passed,
        failed,
        skipped,
    } = counts;
    println!(
        "\ntest result: {outcome}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
    );
    println!("{counts}");
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    if passed == 0 {
        bail!("no test ran");
    }
    if skipped > 0 && std::env::var_os("CI").is_some() {
        bail!("{skipped} tests were skipped: here everything must be installed");
    }
    Ok(())
}

/// Counts a part that is a list of checks of our own.
fn part(name: &str, result: Result<usize>) -> Counts {
    match result {
        Ok(passed) => {
            println!("{name}: {passed} passed");
            Counts {
                passed: passed as u64,
                ..Counts::default()
            }
        }
        Err(error) => {
            println!("{name}: FAILED: {error:#}");
            Counts::one(false)
        }
    }
}

/// The built tests and what they are told about their surroundings.
struct Tests {
    root: PathBuf,
    selection: Vec<String>,
    environment: BTreeMap<&'static str, PathBuf>,
}

impl Tests {
    /// Builds the tests of `packages` (of all, if empty) and fetches the
    /// model with the binary that the build made, as a user would.
    fn build(root: &Path, packages: &[String]) -> Result<Self> {
        let selection = if packages.is_empty() {
            vec!["--workspace".to_owned()]
        } else {
            let pairs = packages.iter().map(|p| ["--package".to_owned(), p.clone()]);
            pairs.flatten().collect()
        };
        let mut tests = Self {
            root: root.to_owned(),
            selection,
            environment: BTreeMap::new(),
        };
        let mut binary = None;
        // Binaries and tests in one build: apart, they would be built with
        // other features of what they stand on, and so twice.
        let status = process::lines(
            tests.cargo("build").args([
                "--bins",
                "--tests",
                "--examples",
                "--message-format=json-render-diagnostics",
            ]),
            |line| binary = binary.take().or_else(|| Artifact::parse(line)?.binary()),
        )?;
        if !status.success() {
            bail!("the tests do not build");
        }
        if let Some(binary) = &binary {
            tests.environment.insert("FOREBAY_BIN", binary.clone());
        }
        // With packages that do not have the binary, one from before can
        // fetch the model; without it, the tests that need the model say so.
        let before = root.join("target/debug/forebay");
        if let Some(binary) = binary.or_else(|| before.exists().then_some(before)) {
            let model = pull(root, &binary)?;
            tests.environment.insert("FOREBAY_TEST_MODEL", model);
        }
        Ok(tests)
    }

    fn cargo(&self, subcommand: &str) -> std::process::Command {
        let mut command = process::cargo(&self.root);
        command
            .args([subcommand, "--locked", "--all-features"])
            .args(&self.selection)
            .envs(&self.environment);
        command
    }

    fn rust(&self, filter: Option<&str>) -> Result<Counts> {
        let mut command = self.cargo("test");
        command.arg("--no-fail-fast").args(filter);
        self.count(&mut command)
    }

    fn python(&self) -> Result<Counts> {
        let python = setup::python_bin(&self.root).join("python");
        let mut command = process::command(python, &self.root);
        command
            .args([
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "tests/python",
            ])
            .envs(&self.environment);
        self.count(&mut command)
    }

    /// Runs tests and adds up their closing lines. A run that fails without
    /// a failed test (it did not compile, it crashed) counts as one failure.
    fn count(&self, command: &mut std::process::Command) -> Result<Counts> {
        let mut counts = Counts::default();
        let status = process::lines(command, |line| {
            println!("{line}");
            counts += Counts::parse(line).unwrap_or_default();
        })?;
        if !status.success() && counts.failed == 0 {
            counts += Counts::one(false);
        }
        Ok(counts)
    }
}

/// Fetches the model, or finds it in the cache, and returns its file.
pub(crate) fn pull(root: &Path, binary: &Path) -> Result<PathBuf> {
    let path = process::stdout(
        process::command(binary, root)
            .env("PATH", setup::path_with_python(root)?)
            .args(["model", "pull", MODEL]),
    )?;
    let path = PathBuf::from(path.lines().last().unwrap_or_default());
    if !path.is_file() {
        bail!("`forebay model pull` did not end with the model's path");
    }
    Ok(path)
}

/// One line of what cargo writes about what it builds.
#[derive(Deserialize)]
struct Artifact {
    target: workspace::Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Artifact {
    fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The path of the `forebay` binary, if this is it.
    fn binary(self) -> Option<PathBuf> {
        let is_ours = self.target.name == "forebay" && self.target.kind == ["bin"];
        self.executable.filter(|_| is_ours && !self.profile.test)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_among_the_artifacts() {
        let line = |kind: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"forebay","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":"x/forebay"}}"#
            )
        };
        let binary = |line: String| Artifact::parse(&line).unwrap().binary();
        assert_eq!(binary(line("bin", false)), Some("x/forebay".into()));
        assert_eq!(binary(line("bin", true)), None);
        assert_eq!(binary(line("test", false)), None);
        assert!(Artifact::parse(r#"{"reason":"build-finished","success":true}"#).is_none());
    }

    #[test]
    fn a_filter_or_package_runs_rust_alone() {
        let args = |filter: Option<&str>, only: &[Part]| Args {
            filter: filter.map(str::to_owned),
            packages: Vec::new(),
            only: only.to_vec(),
        };
        assert_eq!(args(None, &[]).parts().len(), Part::value_variants().len());
        assert!(args(Some("x"), &[]).parts() == [Part::Rust]);
        assert!(args(None, &[Part::Python]).parts() == [Part::Python]);
    }
}
