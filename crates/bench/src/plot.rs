use std::fmt::Write as _;

use crate::record::RequestRecord;
use crate::report::Report;

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 220.0;
const MARGIN_LEFT: f64 = 70.0;
const MARGIN_RIGHT: f64 = 150.0;
const MARGIN_TOP: f64 = 48.0;
const MARGIN_BOTTOM: f64 = 40.0;
const HEADER: f64 = 64.0;

/// Most points of a line over time.
const MOST_BUCKETS: usize = 80;

/// Requests that a point of a line over time should stand for at least.
const REQUESTS_A_BUCKET: usize = 20;

const BLUE: &str = "#1f5fa8";
const RED: &str = "#b3372f";
const GREY: &str = "#777";

/// A picture of a run as one SVG document without references to anything outside: latency by
/// percentile, the time to the first token (or to the end, if nothing was streamed) over the run,
/// and what was done in each second of it.
pub fn plot(report: &Report, records: &[RequestRecord]) -> String {
    let panels = [
        by_percentile(records),
        over_time(report, records),
        throughput(report, records),
    ];
    let panels: Vec<Panel> = panels
        .into_iter()
        .filter(|panel| !panel.is_empty())
        .collect();
    let height = HEADER + panels.len() as f64 * (PANEL_HEIGHT + MARGIN_TOP + MARGIN_BOTTOM);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
"#
    );
    let run = &report.run;
    let title = format!("{}, {}", run.url, run.model);
    text(&mut svg, 20.0, 26.0, 15, "start", "#000", &title);
    let verdict = if report.valid {
        ""
    } else {
        "; NOT VALID: see the report"
    };
    let load = format!("{}; {}{verdict}", run.arrival, run.workload);
    text(&mut svg, 20.0, 46.0, 12, "start", GREY, &load);
    for (index, panel) in panels.iter().enumerate() {
        let top = HEADER + index as f64 * (PANEL_HEIGHT + MARGIN_TOP + MARGIN_BOTTOM) + MARGIN_TOP;
        panel.draw(&mut svg, top);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Points in the units of the axes, in the order of x.
struct Line {
    name: &'static str,
    colour: &'static str,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

struct Panel {
    title: &'static str,
    x_ticks: Vec<(f64, String)>,
    x_label: &'static str,
    x_max: f64,
    lines: Vec<Line>,
    /// Whether y is logarithmic.
    is_log: bool,
}

/// How far to the right a share of requests stands: each further nine of it takes as much room.
fn percentile_x(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn by_percentile(records: &[RequestRecord]) -> Panel {
    let line = |name, colour, dashed, value: fn(&RequestRecord) -> Option<f64>| {
        let mut values: Vec<f64> = succeeded(records).filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let points = values.iter().enumerate().map(|(index, &ms)| {
            // The largest of 1,000 stands for more than 99.9 % of them.
            (percentile_x((index as f64 + 0.5) / count as f64), ms)
        });
        Line {
            name,
            colour,
            dashed,
            points: thin(points.collect()),
        }
    };
    let lines = vec![
        line("end to end", RED, false, |record| record.e2e_ms),
        line("TTFT", BLUE, false, |record| record.ttft_ms),
        line("TPOT", GREY, true, |record| record.tpot_ms),
    ];
    let x_max = lines
        .iter()
        .filter_map(|line| line.points.last())
        .fold(1.0, |most: f64, point| most.max(point.0));
    let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    let names = ["0", "50", "90", "99", "99.9", "99.99", "99.999"];
    Panel {
        title: "latency by percentile, ms",
        x_ticks: (shares.iter().zip(names))
            .map(|(&share, name)| (percentile_x(share), name.to_owned()))
            .filter(|(x, _)| *x <= x_max)
            .collect(),
        x_label: "percentile",
        x_max,
        lines,
        is_log: true,
    }
}

fn over_time(report: &Report, records: &[RequestRecord]) -> Panel {
    let is_streamed = report.latency_ms.ttft.is_some();
    let due = |record: &RequestRecord| record.scheduled_seconds.unwrap_or(record.sent_seconds);
    // A short burst may have kept the server busy for long after it.
    let seconds = records.iter().map(due).fold(0.0, f64::max);
    let count = buckets(records);
    let mut buckets: Vec<Vec<f64>> = vec![Vec::new(); count];
    for record in succeeded(records) {
        let ms = if is_streamed {
            record.ttft_ms
        } else {
            record.e2e_ms
        };
        buckets[bucket(due(record), seconds, count)].extend(ms);
    }
    let width = seconds / count as f64;
    let (mut median, mut p99) = (Vec::new(), Vec::new());
    for (index, values) in buckets.iter_mut().enumerate() {
        values.sort_by(f64::total_cmp);
        let Some(last) = values.len().checked_sub(1) else {
            continue;
        };
        let x = (index as f64 + 0.5) * width;
        let at = |share: f64| values[(share * last as f64).round() as usize];
        median.push((x, at(0.5)));
        p99.push((x, at(0.99)));
    }
    Panel {
        title: if is_streamed {
            "time to the first token by when it was sent, ms"
        } else {
            "time to the end of the answer by when it was sent, ms"
        },
        x_ticks: ticks(seconds),
        x_label: "seconds",
        x_max: seconds,
        lines: vec![
            Line {
                name: "p99",
                colour: RED,
                dashed: false,
                points: p99,
            },
            Line {
                name: "p50",
                colour: BLUE,
                dashed: false,
                points: median,
            },
        ],
        is_log: false,
    }
}

fn throughput(report: &Report, records: &[RequestRecord]) -> Panel {
    let count = buckets(records);
    let mut completed = vec![0.0; count];
    let mut failed = vec![0.0; count];
    for record in records {
        let ended = if record.failure.is_none() {
            &mut completed
        } else {
            &mut failed
        };
        ended[bucket(record.end_seconds, report.duration_seconds, count)] += 1.0;
    }
    let width = report.duration_seconds / count as f64;
    let line = |name, colour, counts: Vec<f64>| Line {
        name,
        colour,
        dashed: false,
        points: (counts.iter().enumerate())
            .map(|(index, count)| ((index as f64 + 0.5) * width, count / width))
            .filter(|(_, rate)| rate.is_finite())
            .collect(),
    };
    let mut lines = vec![line("completed", BLUE, completed)];
    if failed.iter().any(|&count| count > 0.0) {
        lines.push(line("failed", RED, failed));
    }
    Panel {
        title: "requests that ended, a second",
        x_ticks: ticks(report.duration_seconds),
        x_label: "seconds",
        x_max: report.duration_seconds,
        lines,
        is_log: false,
    }
}

fn succeeded(records: &[RequestRecord]) -> impl Iterator<Item = &RequestRecord> {
    records.iter().filter(|record| record.failure.is_none())
}

/// Into how many parts a run is cut: into few if there is little in it.
fn buckets(records: &[RequestRecord]) -> usize {
    (records.len() / REQUESTS_A_BUCKET).clamp(8, MOST_BUCKETS)
}

fn bucket(seconds: f64, duration: f64, count: usize) -> usize {
    if duration > 0.0 {
        ((seconds / duration * count as f64) as usize).min(count - 1)
    } else {
        0
    }
}

/// As many points as the eye can tell apart, with the last ones kept: they are the tail.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const MOST: usize = 2000;
    let step = 1.0 / (WIDTH * 2.0);
    if points.len() <= MOST {
        return points;
    }
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if kept.last().is_none_or(|last| point.0 - last.0 >= step) {
            kept.push(point);
        }
    }
    kept
}

/// Round numbers from 0 to `max`, five to ten of them.
fn ticks(max: f64) -> Vec<(f64, String)> {
    if max <= 0.0 {
        return vec![(0.0, "0".to_owned())];
    }
    let power = 10_f64.powf((max / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| max / step <= 8.0)
        .unwrap_or(power);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    (0..)
        .map(|index| f64::from(index) * step)
        .take_while(|&value| value <= max * 1.0001)
        .map(|value| (value, format!("{value:.digits$}")))
        .collect()
}

impl Panel {
    fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    fn draw(&self, svg: &mut String, top: f64) {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|p| p.1);
        let max = values().fold(0.0, f64::max).max(1e-6);
        let (low, high) = if self.is_log {
            let min = values().fold(f64::INFINITY, f64::min).max(1e-4);
            (
                min.log10().floor(),
                max.log10().ceil().max(min.log10().floor() + 1.0),
            )
        } else {
            (0.0, max * 1.05)
        };
        let right = WIDTH - MARGIN_RIGHT;
        let bottom = top + PANEL_HEIGHT;
        let x = |value: f64| MARGIN_LEFT + value / self.x_max.max(1e-9) * (right - MARGIN_LEFT);
        let y = |value: f64| {
            let value = if self.is_log {
                value.max(1e-4).log10()
            } else {
                value
            };
            bottom - (value - low) / (high - low) * PANEL_HEIGHT
        };
        text(
            svg,
            MARGIN_LEFT,
            top - 12.0,
            13,
            "start",
            "#000",
            self.title,
        );
        let y_ticks: Vec<(f64, String)> = if self.is_log {
            (low as i32..=high as i32)
                .map(|power| 10_f64.powi(power))
                .map(|v| (v, v.to_string()))
                .collect()
        } else {
            ticks(high)
        };
        for (value, name) in &y_ticks {
            let at = y(*value);
            rule(svg, (MARGIN_LEFT, at), (right, at));
            text(svg, MARGIN_LEFT - 8.0, at + 4.0, 11, "end", GREY, name);
        }
        for (value, name) in &self.x_ticks {
            let at = x(*value);
            rule(svg, (at, top), (at, bottom));
            text(svg, at, bottom + 16.0, 11, "middle", GREY, name);
        }
        text(
            svg,
            right + 12.0,
            bottom + 16.0,
            11,
            "start",
            GREY,
            self.x_label,
        );
        let mut label_y = top + 10.0;
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let mut path = String::new();
            for (index, &(px, py)) in line.points.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", x(px), y(py)).expect(FITS);
            }
            if let [(px, py)] = line.points[..] {
                // A path of one point would not be seen.
                let (x, y, colour) = (x(px), y(py), line.colour);
                writeln!(
                    svg,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{colour}"/>"#
                )
                .expect(FITS);
            }
            let (colour, dash) = (line.colour, if line.dashed { "5 4" } else { "none" });
            writeln!(
                svg,
                r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dash}"/>"#
            )
            .expect(FITS);
            text(svg, right + 12.0, label_y, 12, "start", colour, line.name);
            label_y += 18.0;
        }
    }
}

const FITS: &str = "a String takes every line";

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    writeln!(
        svg,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#ddd"/>"##,
        from.0, from.1, to.0, to.1
    )
    .expect(FITS);
}

fn text(svg: &mut String, x: f64, y: f64, size: u8, anchor: &str, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#
    )
    .expect(FITS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let values = |max| {
            ticks(max)
                .into_iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(values(10.0), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(
            values(0.35),
            [
                "0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30", "0.35"
            ]
        );
        for max in [0.001, 1.0, 7.0, 1234.0, 9e6] {
            assert!((4..=9).contains(&ticks(max).len()), "{max}");
        }
    }

    #[test]
    fn thinning_keeps_the_tail() {
        let points: Vec<(f64, f64)> = (0..100_000)
            .map(|index| (percentile_x((f64::from(index) + 0.5) / 100_000.0), 1.0))
            .collect();
        let last = points[points.len() - 10..].to_vec();
        let kept = thin(points);
        assert!(kept.len() < 20_000, "{}", kept.len());
        assert_eq!(kept[kept.len() - 10..], last);
    }
}
