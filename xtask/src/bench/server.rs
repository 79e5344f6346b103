use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// A `forebay serve --engine mocker` that ends with this value.
pub(super) struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts one and asks it for a token; also the time from the start to that reply.
    ///
    /// # Errors
    /// If it does not start or does not answer.
    pub(super) fn start(forebay: &Path, settings: &[&str]) -> Result<(Self, Duration)> {
        let began = Instant::now();
        let mut child = process::command(forebay, Path::new("."))
            .args(["serve", "--engine", "mocker", "--port", "0"])
            .args(["--set", "telemetry.log.filter=warn"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start forebay")?;
        let output = child.stdout.take().expect("stdout was just piped");
        // Ended by its drop from here on, whatever happens.
        let mut server = Self {
            child,
            url: String::new(),
        };
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read what forebay prints")?;
            if let Some(url) = line.strip_prefix("address   ") {
                url.trim().clone_into(&mut server.url);
                break;
            }
        }
        server.ask().context("the server does not answer")?;
        Ok((server, began.elapsed()))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        let address = self.url.strip_prefix("http://").context("no address")?;
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// If the system does not say.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("no resident memory is told")? * 1024)
    }

    /// Asks for one token, over a connection of its own.
    ///
    /// # Errors
    /// If the answer is not there or not good.
    pub(super) fn ask(&self) -> Result<()> {
        let body = r#"{"model":"mocker","prompt":"a","max_tokens":1}"#;
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{answer}");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
