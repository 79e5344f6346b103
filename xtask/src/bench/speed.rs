//! `cargo xtask bench speed`: how fast the native engine is with the model that tests use.

use anyhow::Result;

use crate::{process, test, workspace};

/// Builds in release, fetches the model as a user would, and prints the tables of the step itself
/// and of the engine around it.
///
/// # Errors
/// If something does not build or run.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    process::run(process::cargo(&root).args(["build", "--locked", "--release"]))?;
    let model = test::pull(&root, &root.join("target/release/forebay"))?;
    for bench in ["forward", "engine"] {
        process::run(
            process::cargo(&root)
                .args(["bench", "--locked", "--package", "forebay-native-engine"])
                .args(["--bench", bench, "--", "--model"])
                .arg(&model),
        )?;
    }
    Ok(())
}
