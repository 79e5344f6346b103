use std::collections::HashMap;

use forebay_observability::{EncodeLabelSet, Family, Gauge, Registry};
use forebay_tokens::WorkerId;

use crate::names::EndpointId;

/// How things stand with an instance that discovery names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not answered yet.
    Connecting,
    /// It answers, and has not said that the record is its own.
    Unconfirmed,
    /// Requests may be sent there.
    Up,
    /// It takes nothing new for a while.
    Paused,
    /// It takes nothing new.
    Draining,
    /// It answered before and does not now.
    Lost,
    /// It has not answered for so long that it was told.
    Unreached,
}

impl Standing {
    const ALL: [Self; 7] = [
        Self::Connecting,
        Self::Unconfirmed,
        Self::Up,
        Self::Paused,
        Self::Draining,
        Self::Lost,
        Self::Unreached,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Unconfirmed => "unconfirmed",
            Self::Up => "up",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Lost => "lost",
            Self::Unreached => "unreached",
        }
    }

    /// Whether nobody answers there.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Self::Connecting | Self::Lost | Self::Unreached)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    component: String,
    state: &'static str,
}

/// How things stand with each instance of an endpoint, counted by `forebay_discovery_members` for as
/// long as this lives.
pub(super) struct Standings {
    gauges: [Gauge; Standing::ALL.len()],
    of: HashMap<WorkerId, Standing>,
}

impl Standings {
    pub(super) fn new(endpoint: &EndpointId, registry: &Registry) -> Self {
        let family: Family<Labels, Gauge> = registry.component("discovery").family(
            "members",
            "Instances that are followed, by the component they are of and by how they stand",
        );
        let gauge = |standing: Standing| {
            family.get_or_create_owned(&Labels {
                component: endpoint.component().to_owned(),
                state: standing.as_str(),
            })
        };
        Self {
            gauges: Standing::ALL.map(gauge),
            of: HashMap::new(),
        }
    }

    /// How things stand with an instance that is followed.
    pub(super) fn get(&self, worker: WorkerId) -> Option<Standing> {
        self.of.get(&worker).copied()
    }

    pub(super) fn set(&mut self, worker: WorkerId, standing: Standing) {
        self.gauges[standing as usize].inc();
        if let Some(before) = self.of.insert(worker, standing) {
            self.gauges[before as usize].dec();
        }
    }

    /// It is not followed any more; how it stood.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<Standing> {
        let before = self.of.remove(&worker)?;
        self.gauges[before as usize].dec();
        Some(before)
    }
}

impl Drop for Standings {
    fn drop(&mut self) {
        for standing in self.of.values() {
            self.gauges[*standing as usize].dec();
        }
    }
}
