use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Error;

/// User and system time that this process has used.
pub(crate) fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// User and system time that other processes have used, together; none if none are asked for.
///
/// # Errors
///
/// [`Error::ServerCpu`] if one is not there, or if this is not Linux.
pub(crate) fn of_processes(pids: &[u32]) -> Result<Option<Duration>, Error> {
    let mut total = None;
    for &pid in pids {
        let time = of_process(pid).map_err(|source| Error::ServerCpu { pid, source })?;
        *total.get_or_insert(Duration::ZERO) += time;
    }
    Ok(total)
}

fn of_process(pid: u32) -> io::Result<Duration> {
    if !cfg!(target_os = "linux") {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(
        ticks as f64 / ticks_per_second as f64,
    ))
}

/// `utime` and `stime` of a line of `/proc/PID/stat` (proc(5)), fields 14 and 15. Field 2, the
/// program's name in parentheses, may itself have spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_spaces_and_parentheses() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 3 0 99";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn both_ways_to_read_a_process_agree() {
        let pid = std::process::id();
        let before = own();
        let read = of_processes(&[pid]).unwrap().unwrap();
        let after = own();
        // The kernel counts whole ticks of 10 ms for user and system each.
        let slack = Duration::from_millis(20);
        assert!(
            read + slack >= before && read <= after + slack,
            "{before:?} {read:?} {after:?}"
        );
        assert_eq!(of_processes(&[]).unwrap(), None);
        assert!(matches!(
            of_processes(&[u32::MAX]),
            Err(Error::ServerCpu { pid: u32::MAX, .. })
        ));
    }
}
