use std::error::Error;
use std::fmt;

/// Shows an error with everything that caused it, as `outer: inner: innermost`.
///
/// For the one place that handles an error and logs it: our errors do not repeat their source in
/// their own message, and not every form of the log shows sources by itself.
///
/// ```
/// use forebay_observability::ErrorChain;
///
/// let error = std::io::Error::other("no space left");
/// tracing::warn!(error = %ErrorChain(&error), "block not offloaded");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        for source in std::iter::successors(self.0.source(), |&error| error.source()) {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{name}")]
    struct Nested {
        name: &'static str,
        source: Option<Box<Nested>>,
    }

    fn nested(name: &'static str, source: Option<Nested>) -> Nested {
        Nested {
            name,
            source: source.map(Box::new),
        }
    }

    #[test]
    fn every_source_is_shown_once() {
        let error = nested("a", Some(nested("b", Some(nested("c", None)))));
        assert_eq!(ErrorChain(&error).to_string(), "a: b: c");
        assert_eq!(ErrorChain(&nested("a", None)).to_string(), "a");
    }
}
