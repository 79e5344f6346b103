/// A number that nobody else has.
///
/// # Panics
///
/// If the system has no source of randomness.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system has a source of randomness")
}
