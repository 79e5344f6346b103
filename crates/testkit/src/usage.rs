//! What a process uses, as proc(5) tells it. Each panics if there is no such process.

use std::fs;
use std::time::Duration;

/// The CPU time of its threads so far, of those that run still.
pub fn cpu_time(process: u32) -> Duration {
    let threads = entries(process, "task").map(|thread| {
        // A thread may end meanwhile.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        nanos.unwrap_or(0)
    });
    Duration::from_nanos(threads.sum())
}

/// Its resident memory, in bytes.
pub fn resident_bytes(process: u32) -> u64 {
    status(process, "VmRSS:") << 10
}

/// The most resident memory that it had since [`forget_peak`], in bytes.
pub fn peak_resident_bytes(process: u32) -> u64 {
    status(process, "VmHWM:") << 10
}

/// Makes the memory of now the peak; see proc(5), `clear_refs`.
pub fn forget_peak(process: u32) {
    let path = format!("/proc/{process}/clear_refs");
    fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// How many files and sockets it has open.
pub fn descriptors(process: u32) -> usize {
    entries(process, "fd").count()
}

/// A value of its status; sizes are in KiB.
fn status(process: u32, name: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok());
    value.unwrap_or_else(|| panic!("{path} has no {name}"))
}

fn entries(process: u32, folder: &str) -> impl Iterator<Item = fs::DirEntry> {
    let path = format!("/proc/{process}/{folder}");
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    entries.map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let us = std::process::id();
        let before = (cpu_time(us), descriptors(us));
        let _file = fs::File::open("/proc/self/status").expect("it is there");
        let mut sum = 0_u64;
        while cpu_time(us) == before.0 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(descriptors(us) >= 4);
        assert!(resident_bytes(us) > 1 << 18);
        assert!(peak_resident_bytes(us) >= resident_bytes(us) / 2);
    }
}
