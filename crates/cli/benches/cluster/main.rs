//! Clusters of processes on one machine: what a fleet takes, and how long faults are noticed for.
//! Run by `cargo xtask bench fleet` and `cargo xtask bench faults`, which print tables for
//! `docs/benchmarks.md`. It needs `etcd` and `nats-server`.
#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![allow(clippy::print_stdout)]

#[cfg(target_os = "linux")]
mod cluster;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod fleet;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod table;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this bench reads proc(5), and runs on Linux only");
}

#[cfg(target_os = "linux")]
fn main() {
    // Cargo adds `--bench` to what it is told to hand over.
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let repeats = |text: &str| text.parse().expect("--repeats takes a number");
    match arguments.as_slice() {
        ["fleet", "--repeats", count] => fleet::run(repeats(count)),
        ["faults", "--repeats", count] => faults::run(repeats(count)),
        // As `cargo bench` without a name runs it.
        [] => {
            fleet::run(1);
            faults::run(1);
        }
        _ => panic!("the arguments are: fleet|faults --repeats N"),
    }
}
