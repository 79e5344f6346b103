use std::collections::HashSet;

/// The models that may be there soon: requests for them wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Whether any may: it is not known yet who is there.
    pub(super) any: bool,
    /// The names, aliases included, of those that are on their way.
    pub(super) names: HashSet<String>,
}

impl Expected {
    pub(super) fn has(&self, name: &str) -> bool {
        self.any || self.names.contains(name)
    }
}
