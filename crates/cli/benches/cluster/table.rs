/// What was measured of one thing.
struct Row {
    name: String,
    goal: &'static str,
    numbers: Vec<f64>,
}

/// Numbers by what they are of, in the order in which they first came.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn put(&mut self, name: &str, goal: &'static str, number: f64) {
        self.extend(name, goal, [number]);
    }

    pub(crate) fn extend(
        &mut self,
        name: &str,
        goal: &'static str,
        numbers: impl IntoIterator<Item = f64>,
    ) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.numbers.extend(numbers),
            None => self.rows.push(Row {
                name: name.to_owned(),
                goal,
                numbers: numbers.into_iter().collect(),
            }),
        }
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints medians and spreads.
    pub(crate) fn print_spreads(self, title: &str) {
        println!("| {title} | goal | median | spread |\n|---|---|---|---|");
        for row in sorted(self.rows) {
            let (median, _) = quantiles(&row.numbers);
            let (least, most) = (row.numbers[0], row.numbers[row.numbers.len() - 1]);
            let (name, goal) = (row.name, row.goal);
            println!("| {name} | {goal} | {median:.2} | {least:.2} - {most:.2} |");
        }
        print_notes(&self.notes);
    }

    /// Prints medians, 99th percentiles, the greatest and how many there are.
    pub(crate) fn print_tails(self, title: &str) {
        println!("| {title} | goal | p50 | p99 | max | samples |\n|---|---|---|---|---|---|");
        for row in sorted(self.rows) {
            let (median, p99) = quantiles(&row.numbers);
            let (count, most) = (row.numbers.len(), row.numbers[row.numbers.len() - 1]);
            let (name, goal) = (row.name, row.goal);
            println!("| {name} | {goal} | {median:.1} | {p99:.1} | {most:.1} | {count} |");
        }
        print_notes(&self.notes);
    }
}

/// Those with numbers, each from the least to the greatest.
fn sorted(rows: Vec<Row>) -> impl Iterator<Item = Row> {
    let rows = rows.into_iter().filter(|row| !row.numbers.is_empty());
    rows.map(|mut row| {
        row.numbers.sort_by(f64::total_cmp);
        row
    })
}

/// The median and the 99th percentile of sorted numbers: each is one of them.
fn quantiles(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len();
    (numbers[count / 2], numbers[(count * 99).div_ceil(100) - 1])
}

fn print_notes(notes: &[String]) {
    for note in notes {
        println!("\n{note}");
    }
}
