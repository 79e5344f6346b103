use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use serde::Serialize;

use crate::Error;
use crate::flag::Flag;

/// One layer with a name.
pub(crate) struct Layer {
    pub(crate) metadata: Metadata,
    pub(crate) dict: Dict,
}

impl Layer {
    pub(crate) fn defaults<T: Serialize>(values: T) -> Result<Self, Error> {
        let value = Value::serialize(values)?;
        Ok(Self {
            metadata: Metadata::named("default"),
            dict: value.into_dict().unwrap_or_default(),
        })
    }

    pub(crate) fn flag(flag: Flag) -> Self {
        let value = figment::util::nest(&flag.key, flag.value);
        Self {
            metadata: Metadata::named(format!("flag {}", flag.name)),
            dict: value.into_dict().unwrap_or_default(),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}
