use serde::{Deserialize, Serialize};

use crate::Error;

/// Measured seconds over two axes: how many tokens or sequences an iteration has, and how many
/// tokens each of them attends to on average.
///
/// Between the points it is bilinear. Below an axis's first point the value at that point holds;
/// beyond the last one it goes on as it rose between the last two. Seconds never fall along an
/// axis, so more work never takes less time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Points", into = "Points")]
pub struct Grid {
    points: Points,
}

/// The form in files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    counts: Vec<f64>,
    contexts: Vec<f64>,
    seconds: Vec<Vec<f64>>,
}

impl Grid {
    /// Takes measured points: `seconds[i][j]` is the time at `counts[i]` and `contexts[j]`.
    ///
    /// # Errors
    ///
    /// [`Error::Axis`] if an axis is empty or does not ascend, [`Error::Shape`] if values are
    /// missing, [`Error::Seconds`] and [`Error::Falls`] for values that cannot be.
    pub fn new(
        counts: Vec<f64>,
        contexts: Vec<f64>,
        seconds: Vec<Vec<f64>>,
    ) -> Result<Self, Error> {
        Self::try_from(Points {
            counts,
            contexts,
            seconds,
        })
    }

    /// The least of its values: at the first point of both axes.
    pub fn least_seconds(&self) -> f64 {
        self.points.seconds[0][0]
    }

    /// The seconds at a point.
    pub fn at(&self, count: f64, context: f64) -> f64 {
        let Points {
            counts,
            contexts,
            seconds,
        } = &self.points;
        let (row, below) = place(counts, count);
        let (column, left) = place(contexts, context);
        let along = |row: &Vec<f64>| between(row, column, left);
        let (first, second) = (along(&seconds[row]), seconds.get(row + 1).map(along));
        second.map_or(first, |second| first + (second - first) * below)
    }

    pub(crate) fn at_speed(mut self, speed: f64) -> Self {
        self.points
            .seconds
            .iter_mut()
            .flatten()
            .for_each(|seconds| *seconds /= speed);
        self
    }
}

/// The index of the interval that `value` is in or nearest to, and where in it: 0 at its start, 1
/// at its end, more beyond the last.
fn place(axis: &[f64], value: f64) -> (usize, f64) {
    let after = axis.partition_point(|point| *point <= value);
    let start = after.saturating_sub(1).min(axis.len().saturating_sub(2));
    match axis.get(start + 1) {
        Some(end) => (
            start,
            ((value - axis[start]) / (end - axis[start])).max(0.0),
        ),
        None => (start, 0.0),
    }
}

fn between(values: &[f64], start: usize, share: f64) -> f64 {
    let first = values[start];
    values
        .get(start + 1)
        .map_or(first, |second| first + (second - first) * share)
}

impl TryFrom<Points> for Grid {
    type Error = Error;

    fn try_from(points: Points) -> Result<Self, Error> {
        let (rows, columns) = (points.counts.len(), points.contexts.len());
        for (axis, values) in [("counts", &points.counts), ("contexts", &points.contexts)] {
            let ascends = values.windows(2).all(|pair| pair[0] < pair[1]);
            let finite = values.iter().all(|value| value.is_finite());
            if values.is_empty() || !ascends || !finite {
                return Err(Error::Axis { axis });
            }
        }
        let full = |row: &Vec<f64>| row.len() == columns;
        if points.seconds.len() != rows || !points.seconds.iter().all(full) {
            return Err(Error::Shape { rows, columns });
        }
        for (row, values) in points.seconds.iter().enumerate() {
            for (column, value) in values.iter().copied().enumerate() {
                if !(value.is_finite() && value >= 0.0) {
                    let field = "seconds";
                    return Err(Error::Seconds { field, value });
                }
                let left = column.checked_sub(1).map(|left| values[left]);
                let above = row
                    .checked_sub(1)
                    .map(|above| points.seconds[above][column]);
                if left.into_iter().chain(above).any(|before| value < before) {
                    return Err(Error::Falls { row, column });
                }
            }
        }
        Ok(Self { points })
    }
}

impl From<Grid> for Points {
    fn from(grid: Grid) -> Self {
        grid.points
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grid() -> Grid {
        let seconds = vec![vec![1.0, 3.0], vec![2.0, 4.0], vec![6.0, 12.0]];
        Grid::new(vec![1.0, 2.0, 4.0], vec![0.0, 100.0], seconds).unwrap()
    }

    #[test]
    fn points_are_as_measured_and_between_them_it_is_linear() {
        let grid = grid();
        assert_eq!((grid.at(1.0, 0.0), grid.at(4.0, 100.0)), (1.0, 12.0));
        assert_eq!((grid.at(1.0, 50.0), grid.at(3.0, 0.0)), (2.0, 4.0));
        assert_eq!(grid.at(3.0, 50.0), 6.0);
    }

    #[test]
    fn beyond_the_points_it_is_held_below_and_goes_on_above() {
        let grid = grid();
        assert_eq!((grid.at(0.0, 0.0), grid.at(-5.0, -5.0)), (1.0, 1.0));
        assert_eq!((grid.at(6.0, 0.0), grid.at(1.0, 200.0)), (10.0, 5.0));
        let point = Grid::new(vec![8.0], vec![8.0], vec![vec![0.5]]).unwrap();
        assert_eq!((point.at(1.0, 1.0), point.at(100.0, 9.0)), (0.5, 0.5));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let new = |counts: &[f64], contexts: &[f64], seconds: &[&[f64]]| {
            let seconds = seconds.iter().map(|row| row.to_vec()).collect();
            Grid::new(counts.to_vec(), contexts.to_vec(), seconds).unwrap_err()
        };
        let (counts, contexts) = ("counts", "contexts");
        assert_eq!(new(&[], &[1.0], &[]), Error::Axis { axis: counts });
        assert_eq!(
            new(&[1.0], &[2.0, 2.0], &[&[1.0, 1.0]]),
            Error::Axis { axis: contexts }
        );
        assert_eq!(
            new(&[1.0, f64::INFINITY], &[1.0], &[&[1.0], &[1.0]]),
            Error::Axis { axis: counts }
        );
        let shape = Error::Shape {
            rows: 1,
            columns: 2,
        };
        assert_eq!(new(&[1.0], &[1.0, 2.0], &[&[1.0]]), shape);
        let falls = Error::Falls { row: 1, column: 0 };
        assert_eq!(new(&[1.0, 2.0], &[1.0], &[&[2.0], &[1.0]]), falls);
        let falls = Error::Falls { row: 0, column: 1 };
        assert_eq!(new(&[1.0], &[1.0, 2.0], &[&[2.0, 1.0]]), falls);
        let error = new(&[1.0], &[1.0], &[&[f64::NAN]]);
        assert!(error.to_string().starts_with("seconds must be"), "{error}");
    }

    /// Ascending numbers, and rising seconds over them.
    fn any_grid() -> impl Strategy<Value = Grid> {
        let axis = || prop::collection::vec(0.1_f64..100.0, 1..5);
        (axis(), axis()).prop_flat_map(|(counts, contexts)| {
            let n = counts.len() * contexts.len();
            prop::collection::vec(0.0_f64..5.0, n).prop_map(move |rises| {
                let sums = |steps: &[f64]| -> Vec<f64> {
                    let add = |sum: &mut f64, step: &f64| {
                        *sum += step;
                        Some(*sum)
                    };
                    steps.iter().scan(0.0, add).collect()
                };
                let mut seconds: Vec<Vec<f64>> = rises.chunks(contexts.len()).map(sums).collect();
                for row in 1..seconds.len() {
                    let (before, rest) = seconds.split_at_mut(row);
                    let above = before[row - 1].iter();
                    rest[0]
                        .iter_mut()
                        .zip(above)
                        .for_each(|(to, above)| *to += above);
                }
                Grid::new(sums(&counts), sums(&contexts), seconds).unwrap()
            })
        })
    }

    proptest! {
        #[test]
        fn more_work_never_takes_less(
            grid in any_grid(),
            (count, context) in (0.0_f64..1e3, 0.0_f64..1e3),
            (more, further) in (0.0_f64..1e3, 0.0_f64..1e3),
        ) {
            let (less, most) = (grid.at(count, context), grid.at(count + more, context + further));
            prop_assert!(less >= grid.least_seconds() - 1e-9);
            prop_assert!(most >= less - 1e-9 * less, "{} then {}", less, most);
        }
    }
}
