//! The rows and the table.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::time::Duration;

use forebay_testkit::Child;

use crate::carriers::ROWS;
use crate::measure::MEASURED;

/// The columns, with the digits after the point of each.
const COLUMNS: &[(&str, usize)] = &[
    ("round trip, µs", 1),
    ("CPU a request, µs (client / server)", 1),
    ("CPU a token, µs (client / server)", 2),
    ("descriptors at 10,000 streams", 0),
    ("bytes an idle stream", 0),
];

/// Long enough for any row.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was measured: by row and column, the numbers of each side.
type Cells = BTreeMap<(usize, usize), Vec<Vec<f64>>>;

/// Measures every row so often, and prints medians and spreads.
pub(crate) fn run(repeats: usize) {
    let program = env::current_exe().expect("this program has a path");
    let mut cells = Cells::new();
    for repeat in 1..=repeats {
        for (number, row) in ROWS.iter().enumerate() {
            eprintln!("{repeat} of {repeats}: {}", row.name);
            let mut command = Command::new(&program);
            command.args(["--measure", row.name]);
            let mut child = Child::spawn(&command).expect("this program starts again");
            let ended = child.wait_end(PATIENCE);
            assert!(ended.success(), "{child:?}");
            let output = child.output();
            for line in output
                .lines()
                .filter_map(|line| line.strip_prefix(MEASURED))
            {
                let mut numbers = line.split(' ').map(|text| text.parse().expect("a number"));
                let column = numbers.next().expect("a column") as usize;
                let sides = cells.entry((number, column)).or_default();
                sides.push(numbers.collect());
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
fn text(measured: &[Vec<f64>], digits: usize) -> String {
    let sides = measured[0].len();
    let of_side = |side| spread(measured.iter().map(|sides| sides[side]), digits);
    let texts: Vec<_> = (0..sides).map(of_side).collect();
    texts.join(" / ")
}

fn spread(numbers: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
    let median = numbers[numbers.len() / 2];
    format!("{median:.digits$} ({least:.digits$} - {most:.digits$})")
}
