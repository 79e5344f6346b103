use figment::providers::Env;

/// The environment variables of a component: `FOREBAY_<COMPONENT>__<KEY>`, with `__` for the dots
/// of a key.
pub(crate) fn environment(component: &str) -> Env {
    Env::prefixed(&format!("FOREBAY_{}__", component.to_uppercase())).split("__")
}
