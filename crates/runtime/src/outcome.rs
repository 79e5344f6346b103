use std::error::Error;

/// What a task may return: nothing, a `Result` whose error says why it failed, or never.
pub trait Outcome: Send + 'static {
    /// The error, if the task failed.
    fn into_failure(self) -> Option<Box<dyn Error + Send + Sync>>;
}

impl Outcome for () {
    fn into_failure(self) -> Option<Box<dyn Error + Send + Sync>> {
        None
    }
}

impl<E> Outcome for Result<(), E>
where
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    fn into_failure(self) -> Option<Box<dyn Error + Send + Sync>> {
        self.err().map(Into::into)
    }
}

/// An endless loop returns `!`, which has no stable name in this position but this one.
#[expect(private_interfaces, reason = "the name is a detour to a public type")]
impl Outcome for <fn() -> ! as Returns>::Value {
    fn into_failure(self) -> Option<Box<dyn Error + Send + Sync>> {
        self
    }
}

trait Returns {
    type Value;
}

impl<T> Returns for fn() -> T {
    type Value = T;
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskEnd {
    /// It returned, and did not fail.
    Finished,
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
    /// It was dropped before its end.
    Cancelled,
}

impl TaskEnd {
    /// A stable name in snake case, for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
        }
    }
}
