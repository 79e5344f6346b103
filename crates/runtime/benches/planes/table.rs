//! The rows and the table.

use std::collections::BTreeMap;

use crate::carriers::{Kind, ROWS, connect};
use crate::measure::{self, Sides};

/// The columns, with the digits after the point of each.
const COLUMNS: &[(&str, usize)] = &[
    ("round trip, µs", 1),
    ("CPU a request, µs (client / server)", 1),
    ("CPU a token, µs (client / server)", 2),
    ("descriptors at 10,000 streams", 0),
    ("bytes an idle stream", 0),
];

/// What was measured: by row and column, each side's numbers.
type Cells = BTreeMap<(usize, usize), Vec<Sides>>;

/// Measures every row so often, and prints medians and spreads.
pub(crate) async fn run(repeats: usize) {
    let mut cells = Cells::new();
    for repeat in 1..=repeats {
        for (number, row) in ROWS.iter().enumerate() {
            eprintln!("{repeat} of {repeats}: {}", row.name);
            let connected = connect(row).await;
            let mut put = |column, sides| cells.entry((number, column)).or_default().push(sides);
            put(0, Sides(measure::latency(&*connected.carrier).await, None));
            put(1, measure::request_cpu(&connected).await);
            if row.kind == Kind::Streams {
                put(2, measure::token_cpu(&connected).await);
                let idle = measure::idle(&connected).await;
                put(3, idle.descriptors);
                put(4, idle.bytes);
            }
        }
    }
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    println!("| plane | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(COLUMNS.len()));
    for (number, row) in ROWS.iter().enumerate() {
        let cell = |(column, (_, digits)): (usize, &(&str, usize))| {
            let measured = cells.get(&(number, column));
            measured.map_or_else(String::new, |sides| text(sides, *digits))
        };
        let texts: Vec<_> = COLUMNS.iter().enumerate().map(cell).collect();
        println!("| {} | {} |", row.name, texts.join(" | "));
    }
}

/// Median and spread, of both sides where they are apart.
fn text(sides: &[Sides], digits: usize) -> String {
    let first = spread(sides.iter().map(|sides| sides.0), digits);
    let second: Option<Vec<_>> = sides.iter().map(|sides| sides.1).collect();
    match second {
        Some(second) => format!("{first} / {}", spread(second.into_iter(), digits)),
        None => first,
    }
}

fn spread(numbers: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
    let median = numbers[numbers.len() / 2];
    format!("{median:.digits$} ({least:.digits$} - {most:.digits$})")
}
