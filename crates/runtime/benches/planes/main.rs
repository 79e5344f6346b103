//! What the request planes cost, each beside its limit in the same run: a table for
//! `docs/benchmarks.md`, printed by `cargo xtask bench planes`.
//!
//! For each row, client and server are processes of their own, which are this program again, so that
//! each side's CPU time, memory and descriptors are its own. Both have one thread that polls: what
//! is measured is the work, not how many threads share it. The rows take turns, so that a slow second of a shared
//! machine does not fall on one of them.

#![allow(clippy::print_stdout)]

#[cfg(target_os = "linux")]
mod answers;
#[cfg(target_os = "linux")]
mod carriers;
#[cfg(target_os = "linux")]
mod measure;
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    // A task of its own: this thread only waits, and everything is polled by the other.
    let run = match arguments.as_slice() {
        ["--serve", name, service] => {
            let (name, service) = ((*name).to_owned(), (*service).to_owned());
            runtime.spawn(async move { carriers::serve(&name, &service).await })
        }
        ["--measure", name] => {
            let name = (*name).to_owned();
            runtime.spawn(async move { measure::run(&name).await })
        }
        ["--repeats", repeats] => {
            return table::run(repeats.parse().expect("--repeats takes a number"));
        }
        [] => return table::run(3),
        _ => panic!("the arguments are none, or --repeats N"),
    };
    runtime.block_on(run).expect("nothing panics");
}
