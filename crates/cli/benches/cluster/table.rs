/// Numbers by what they are of, in the order in which they first came.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(&'static str, Vec<f64>)>,
}

impl Table {
    pub(crate) fn put(&mut self, name: &'static str, number: f64) {
        match self.rows.iter_mut().find(|row| row.0 == name) {
            Some((_, numbers)) => numbers.push(number),
            None => self.rows.push((name, vec![number])),
        }
    }

    /// Prints medians and spreads.
    pub(crate) fn print(self, title: &str) {
        println!("| {title} | median | spread |\n|---|---|---|");
        for (name, mut numbers) in self.rows {
            numbers.sort_by(f64::total_cmp);
            let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
            let median = numbers[numbers.len() / 2];
            println!("| {name} | {median:.2} | {least:.2} - {most:.2} |");
        }
    }
}
