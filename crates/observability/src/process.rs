use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// The `process_*` metrics that the Prometheus client libraries agree on
/// (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), read from
/// `/proc` at each scrape. What cannot be read is left out; elsewhere than on Linux, all of it.
#[derive(Debug, Default)]
pub(crate) struct ProcessCollector {}

#[cfg(not(target_os = "linux"))]
impl Collector for ProcessCollector {
    fn encode(&self, _: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        linux::Sample::take().encode(&mut encoder)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt;
    use std::fs;

    use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
    use prometheus_client::metrics::{counter::ConstCounter, gauge::ConstGauge};
    use prometheus_client::registry::Unit;

    /// One reading of `/proc`; see proc(5).
    #[derive(Debug, Default)]
    pub(super) struct Sample {
        stat: Option<Stat>,
        memory: Memory,
        open_fds: Option<u64>,
        max_fds: Option<u64>,
        boot_time_seconds: Option<u64>,
    }

    /// From `/proc/self/stat`; times in clock ticks.
    #[derive(Debug, PartialEq, Eq)]
    struct Stat {
        cpu_ticks: u64,
        threads: u64,
        start_ticks_since_boot: u64,
    }

    /// From `/proc/self/status`.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Memory {
        virtual_bytes: Option<u64>,
        resident_bytes: Option<u64>,
    }

    impl Sample {
        pub(super) fn take() -> Self {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            Self {
                stat: parse_stat(&read("/proc/self/stat")),
                memory: parse_status(&read("/proc/self/status")),
                // One of the entries is the descriptor that lists the directory.
                open_fds: fs::read_dir("/proc/self/fd")
                    .ok()
                    .map(|dir| dir.count().saturating_sub(1) as u64),
                max_fds: parse_limits(&read("/proc/self/limits")),
                boot_time_seconds: parse_boot_time(&read("/proc/stat")),
            }
        }

        pub(super) fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
            let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
            let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: Option<f64>| {
                let Some(value) = value else { return Ok(()) };
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(
                    name,
                    help,
                    unit.as_ref(),
                    metric.metric_type(),
                )?)
            };
            let number = |value: Option<u64>| value.map(|v| v as f64);
            gauge(
                "process_resident_memory",
                "Resident memory size.",
                Some(Unit::Bytes),
                number(self.memory.resident_bytes),
            )?;
            gauge(
                "process_virtual_memory",
                "Virtual memory size.",
                Some(Unit::Bytes),
                number(self.memory.virtual_bytes),
            )?;
            gauge(
                "process_open_fds",
                "Open file descriptors.",
                None,
                number(self.open_fds),
            )?;
            gauge(
                "process_max_fds",
                "The limit on open file descriptors.",
                None,
                number(self.max_fds),
            )?;
            let Some(stat) = &self.stat else {
                return Ok(());
            };
            gauge(
                "process_threads",
                "Threads of the process.",
                None,
                Some(stat.threads as f64),
            )?;
            gauge(
                "process_start_time",
                "Start of the process since the Unix epoch.",
                Some(Unit::Seconds),
                self.boot_time_seconds.map(|boot| {
                    boot as f64 + stat.start_ticks_since_boot as f64 / ticks_per_second
                }),
            )?;
            let cpu = ConstCounter::new(stat.cpu_ticks as f64 / ticks_per_second);
            cpu.encode(encoder.encode_descriptor(
                "process_cpu",
                "User and system CPU time.",
                Some(&Unit::Seconds),
                cpu.metric_type(),
            )?)
        }
    }

    fn parse_stat(text: &str) -> Option<Stat> {
        // The second field is the program's name in parentheses and may hold anything; numbering
        // starts again after its end, with field 3 (the state).
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks_since_boot: field(22)?,
        })
    }

    fn parse_status(text: &str) -> Memory {
        let kibibytes = |key| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let value: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(value * 1024)
        };
        Memory {
            virtual_bytes: kibibytes("VmSize:"),
            resident_bytes: kibibytes("VmRSS:"),
        }
    }

    /// The soft limit, the first of the two columns; none when it says `unlimited`.
    fn parse_limits(text: &str) -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix("Max open files"))?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    }

    fn parse_boot_time(text: &str) -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    mod tests {
        use super::*;

        #[test]
        fn stat_is_read_past_any_program_name() {
            let text = "26231 (a) b (c)) S 1 26231 2 0 -1 4194304 192 2 0 1 17 5 0 0 20 0 9 0 \
                        82034 7 8";
            assert_eq!(
                parse_stat(text).unwrap(),
                Stat {
                    cpu_ticks: 22,
                    threads: 9,
                    start_ticks_since_boot: 82034
                }
            );
            assert_eq!(parse_stat("1 (x) S 1"), None);
            assert_eq!(parse_stat(""), None);
        }

        #[test]
        fn status_and_limits_are_read() {
            assert_eq!(
                parse_status("Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t    12 kB\n"),
                Memory {
                    virtual_bytes: Some(2_097_152),
                    resident_bytes: Some(12_288)
                }
            );
            assert_eq!(
                parse_limits("Max open files            1024                 4096        files\n"),
                Some(1024)
            );
            assert_eq!(parse_limits("Max open files   unlimited  unlimited"), None);
            assert_eq!(
                parse_boot_time("cpu 1 2\nbtime 1700000000\n"),
                Some(1_700_000_000)
            );
        }

        #[test]
        fn this_process_is_measured() {
            let registry = crate::Registry::for_process(&crate::BuildInfo {
                service: "test",
                version: "0",
                revision: "",
            });
            let text = registry.encode();
            let value = |name: &str| -> f64 {
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                line.unwrap_or_else(|| panic!("no {name} in {text}"))
                    .parse()
                    .unwrap()
            };
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
            assert!(value("process_resident_memory_bytes") > 100_000.0);
            assert!(
                value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes")
            );
            assert!(value("process_open_fds") >= 1.0);
            assert!(value("process_max_fds") >= value("process_open_fds"));
            assert!(value("process_threads") >= 1.0);
            assert!(value("process_cpu_seconds_total") >= 0.0);
            let age = now.as_secs_f64() - value("process_start_time_seconds");
            assert!((-2.0..86_400.0).contains(&age), "{age}");
        }
    }
}
