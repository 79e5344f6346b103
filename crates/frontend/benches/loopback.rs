//! The physical limit beside the frontend's cost of a streamed token: one write to a loopback socket
//! for each stream, every 6 ms, with nothing around it. The reader is another process, as a client
//! is. Linux only; run with `cargo bench -p forebay-frontend --bench loopback`.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

/// About what an event with one token has.
const FRAME: [u8; 224] = [b'x'; 224];
const STEP: Duration = Duration::from_millis(6);
const STEPS: u32 = 500;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("read") => read(),
        _ => {
            for streams in [1, 16, 128, 512] {
                let micros = write(streams)?;
                println!("{streams:>4} streams: {micros:.2} us of CPU a write");
            }
            Ok(())
        }
    }
}

/// Writes to so many streams; the CPU time of one write in microseconds, the step's share of waking
/// up included.
fn write(streams: usize) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut reader = Command::new(std::env::current_exe()?)
        .args(["read", &listener.local_addr()?.to_string()])
        .arg(streams.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut sockets = Vec::new();
    for _ in 0..streams {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    // It reads by now.
    let mut ready = String::new();
    let output = reader.stdout.take().ok_or("stdout was just piped")?;
    BufReader::new(output).read_line(&mut ready)?;
    let (began, before) = (Instant::now(), cpu()?);
    for step in 1..=STEPS {
        std::thread::sleep((STEP * step).saturating_sub(began.elapsed()));
        for socket in &mut sockets {
            socket.write_all(&FRAME)?;
        }
    }
    let spent = cpu()? - before;
    drop(sockets);
    reader.wait()?;
    Ok(spent.as_secs_f64() * 1e6 / f64::from(STEPS) / streams as f64)
}

/// Reads from so many streams until they end.
#[tokio::main(flavor = "current_thread")]
async fn read() -> Result<()> {
    let mut arguments = std::env::args().skip(2);
    let address = arguments.next().ok_or("no address")?;
    let streams: usize = arguments.next().ok_or("no number of streams")?.parse()?;
    let mut readers = Vec::new();
    for _ in 0..streams {
        let socket = TcpStream::connect(&address)?;
        socket.set_nonblocking(true)?;
        let mut socket = tokio::net::TcpStream::from_std(socket)?;
        readers.push(async move {
            let mut buffer = [0; 4096];
            while !matches!(socket.read(&mut buffer).await, Ok(0) | Err(_)) {}
        });
    }
    println!("ready");
    futures::future::join_all(readers).await;
    Ok(())
}

/// The time that this thread was on a CPU.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().ok_or("no time")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
