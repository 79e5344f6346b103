//! `cargo xtask setup`: what the tests and checks need beyond Rust.
//!
//! Programs of the system come from Debian's packages where we may install
//! them (as root, or in CI); elsewhere the command to run is printed. Python
//! packages go to a virtual environment inside the target folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace;

/// A program of the system: how to see that it is there, and Debian's package.
struct Program {
    probe: &'static [&'static str],
    package: &'static str,
    needed_for: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        probe: &["git", "--version"],
        package: "git",
        needed_for: "listing the tracked files",
    },
    Program {
        probe: &["python3", "-c", "import ensurepip, venv"],
        package: "python3-venv",
        needed_for: "fetching the model and the Python client's tests",
    },
    Program {
        probe: &["valgrind", "--version"],
        package: "valgrind",
        needed_for: "counting instructions",
    },
    Program {
        probe: &["protoc", "--version"],
        package: "protobuf-compiler",
        needed_for: "building the feature `etcd`",
    },
    Program {
        probe: &[
            "protoc",
            "--descriptor_set_out=/dev/null",
            "google/protobuf/descriptor.proto",
        ],
        package: "libprotobuf-dev",
        needed_for: "building the feature `etcd`: what protoc includes",
    },
    Program {
        probe: &["etcd", "--version"],
        package: "etcd-server",
        needed_for: "the tests with a real etcd",
    },
    Program {
        probe: &["nats-server", "--version"],
        package: "nats-server",
        needed_for: "the tests with a real NATS server",
    },
];

/// Where Debian has servers; not in everyone's `PATH`.
const SERVERS: &str = "/usr/sbin";

/// Requirement files, in the order they are installed.
const REQUIREMENTS: &[&str] = &["xtask/requirements.txt", "tests/python/requirements.txt"];

/// Installs what is missing.
///
/// # Errors
/// If something is missing that cannot be installed here.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    system_programs(&root)?;
    python_packages(&root)?;
    println!("setup: everything is there");
    Ok(())
}

/// The folder of the virtual environment's programs.
pub(crate) fn python_bin(root: &Path) -> PathBuf {
    environment(root).join(if cfg!(windows) { "Scripts" } else { "bin" })
}

/// `PATH` with that folder first, so that `python3 -m pip` is there and ours.
///
/// # Errors
/// If a folder's name cannot stand in `PATH`.
pub(crate) fn path_with_python(root: &Path) -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = [python_bin(root)]
        .into_iter()
        .chain(std::env::split_paths(&old));
    std::env::join_paths(folders).context("a folder's name cannot stand in PATH")
}

/// `PATH` with the folder of servers last.
fn path_with_servers() -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&old).chain([PathBuf::from(SERVERS)]);
    std::env::join_paths(folders).context("a folder's name cannot stand in PATH")
}

fn environment(root: &Path) -> PathBuf {
    root.join("target/xtask/python")
}

fn system_programs(root: &Path) -> Result<()> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|p| !is_there(p.probe)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for program in &missing {
        println!("missing: {} (for {})", program.package, program.needed_for);
    }
    let packages: Vec<_> = missing.iter().map(|p| p.package).collect();
    if !may_install() || !is_there(&["apt-get", "--version"]) {
        bail!(
            "install these first; on Debian: sudo apt-get install {}",
            packages.join(" ")
        );
    }
    process::run(process::command("apt-get", root).args(["update", "-q"]))?;
    process::run(
        process::command("apt-get", root)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages),
    )?;
    match missing.iter().find(|p| !is_there(p.probe)) {
        None => Ok(()),
        Some(program) => bail!(
            "`{}` still fails after installing {}",
            program.probe.join(" "),
            program.package
        ),
    }
}

fn python_packages(root: &Path) -> Result<()> {
    let files: Vec<_> = REQUIREMENTS
        .iter()
        .filter(|file| root.join(file).exists())
        .collect();
    let mut wanted = String::new();
    for file in &files {
        wanted += &std::fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {file}"))?;
    }
    // Written last: an environment without it is half made and remade.
    let stamp = environment(root).join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    process::run(
        process::command("python3", root)
            .args(["-m", "venv", "--clear"])
            .arg(environment(root)),
    )?;
    for file in files {
        process::run(
            process::command(python_bin(root).join("python"), root)
                .args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check", "--requirement", file]),
        )?;
    }
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn is_there(probe: &[&str]) -> bool {
    let Ok(path) = path_with_servers() else {
        return false;
    };
    Command::new(probe[0])
        .env("PATH", path)
        .args(&probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether we may change the system: in CI, or as root.
fn may_install() -> bool {
    std::env::var_os("CI").is_some()
        || Command::new("id")
            .arg("-u")
            .output()
            .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
