use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::models::ServedModel;

/// What a pool has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolCounts {
    /// How often what is known of workers' KV caches was repaired, in the order of
    /// [`RepairCounts::KINDS`](super::repair_counts::RepairCounts::KINDS).
    pub(super) repairs: [u64; 3],
    /// KV blocks that the prefix index had no room for.
    pub(super) dropped_blocks: u64,
}

/// What pools counted that are gone, by the name of their model, for as long as that is served: the
/// sum over its versions never goes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastCounts(HashMap<String, PoolCounts>);

impl PoolCounts {
    pub(super) fn add(&mut self, more: Self) {
        for (count, more) in self.repairs.iter_mut().zip(more.repairs) {
            *count += more;
        }
        self.dropped_blocks += more.dropped_blocks;
    }
}

impl PastCounts {
    /// In place of these models there are others.
    pub(crate) fn changed(&mut self, before: &[Arc<ServedModel>], now: &[Arc<ServedModel>]) {
        let pools: HashSet<_> = now.iter().map(|model| pool_of(model)).collect();
        for gone in before
            .iter()
            .filter(|model| !pools.contains(&pool_of(model)))
        {
            let past = self.0.entry(gone.name().to_owned()).or_default();
            past.add(gone.pool().counts());
        }
        let names: HashSet<_> = now.iter().map(|model| model.name()).collect();
        self.0.retain(|name, _| names.contains(&**name));
    }

    /// Of the versions of a model that are gone.
    pub(crate) fn of(&self, name: &str) -> PoolCounts {
        self.0.get(name).copied().unwrap_or_default()
    }
}

/// Which pool counts for which name.
fn pool_of(model: &ServedModel) -> (&str, usize) {
    (model.name(), model.pool().identity())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_chat::Tokenizer;
    use forebay_engine::remote::KvRepair;
    use forebay_router::RouterConfig;

    use super::*;
    use crate::WorkerPool;
    use crate::sample;

    /// A version of a model whose pool has counted so many repairs.
    fn version(name: &str, repairs: usize) -> Arc<ServedModel> {
        let info = sample::engine_info(name);
        let pool = WorkerPool::new(info, &RouterConfig::default()).unwrap();
        for _ in 0..repairs {
            pool.repaired(KvRepair::Range);
        }
        Arc::new(ServedModel::pooled(name, Tokenizer::bytes(), pool))
    }

    #[test]
    fn the_sum_over_versions_does_not_go_back() {
        let [a, b, other] = [version("m", 2), version("m", 3), version("other", 5)];
        let mut past = PastCounts::default();
        past.changed(&[], &[a.clone(), other.clone()]);
        assert_eq!(past.of("m").repairs[0], 0);
        past.changed(
            &[a.clone(), other.clone()],
            &[a.clone(), b.clone(), other.clone()],
        );
        past.changed(
            &[a.clone(), b.clone(), other.clone()],
            &[b.clone(), other.clone()],
        );
        assert_eq!(past.of("m").repairs[0], 2);
        // The same pool under other aliases counts once.
        let renamed = ServedModel::pooled("m", Tokenizer::bytes(), b.pool().clone());
        let renamed = Arc::new(renamed.with_alias("n"));
        past.changed(&[b, other.clone()], &[renamed.clone(), other.clone()]);
        assert_eq!(past.of("m").repairs[0], 2);
        // A name that is gone has no past.
        past.changed(&[renamed, other.clone()], &[other]);
        assert_eq!(past.of("m"), PoolCounts::default());
    }
}
