/// Numbers that are no model of time.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A time that is negative, infinite or not a number.
    #[error("{field} must be a number of seconds of at least 0, not {value}")]
    Seconds {
        /// What it is the time of.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A speed that is not a positive number.
    #[error("a speed must be a number above 0, not {0}")]
    Speed(f64),
    /// An axis without points, or whose points do not ascend.
    #[error("{axis} must be one or more numbers in ascending order")]
    Axis {
        /// The axis's name.
        axis: &'static str,
    },
    /// A grid that has not one value for each pair of its axes' points.
    #[error("seconds must have {rows} rows of {columns} values")]
    Shape {
        /// Points of the first axis.
        rows: usize,
        /// Points of the second axis.
        columns: usize,
    },
    /// More work that takes less time.
    #[error("seconds must not fall along an axis: the value at row {row}, column {column} does")]
    Falls {
        /// The index on the first axis, from 0.
        row: usize,
        /// The index on the second axis, from 0.
        column: usize,
    },
    /// A fixed part that is larger than a value it should be part of.
    #[error("shared_seconds is {shared}, more than the least value of a grid, {least}")]
    Shared {
        /// The fixed part.
        shared: f64,
        /// The least value of both grids.
        least: f64,
    },
}
