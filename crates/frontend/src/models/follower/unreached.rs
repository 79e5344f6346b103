use std::collections::BTreeMap;

use forebay_engine::remote::WorkerCard;
use forebay_runtime::Instance;
use forebay_tokens::WorkerId;

/// Models that are told of, each in a sentence of its own.
const MOST_MODELS: usize = 8;
/// Characters that are shown of what a record says: nobody has confirmed it.
const MOST_CHARACTERS: usize = 200;

/// Workers that are registered and cannot be reached.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    workers: BTreeMap<WorkerId, Worker>,
}

#[derive(Debug)]
struct Worker {
    /// None, if its card cannot be read.
    model: Option<String>,
    address: String,
    reason: String,
}

impl Unreached {
    /// This worker cannot be reached, for this reason.
    pub(super) fn add(&mut self, instance: &Instance, reason: &str) {
        let card = WorkerCard::decode(instance.card.clone());
        let worker = Worker {
            model: card.ok().map(|card| shown(&card.model)),
            address: shown(&instance.address),
            reason: shown(reason),
        };
        self.workers.insert(instance.worker, worker);
    }

    /// That is over.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// A sentence for each model that has such workers, with the address and the reason of one.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut models = BTreeMap::<_, Vec<&Worker>>::new();
        for worker in self.workers.values() {
            models.entry(&worker.model).or_default().push(worker);
        }
        let told = models.iter().take(MOST_MODELS);
        let mut told: Vec<_> = told
            .map(|(model, workers)| sentence(model.as_deref(), workers))
            .collect();
        match models.len() - told.len() {
            0 => {}
            more => told.push(format!("the same is so of {more} more models")),
        }
        told
    }
}

fn sentence(model: Option<&str>, workers: &[&Worker]) -> String {
    let of = match model {
        Some(model) => format!("of model {model}"),
        None => "whose card cannot be read".to_owned(),
    };
    let Worker {
        address, reason, ..
    } = workers[0];
    match workers.len() {
        1 => format!("1 worker {of} is registered and cannot be reached ({address}): {reason}"),
        count => format!(
            "{count} workers {of} are registered and cannot be reached, such as {address}: {reason}"
        ),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_a_sentence() {
        let mut unreached = Unreached::default();
        let mut add = |id: u64, model: Option<&str>, reason: &str| {
            let worker = Worker {
                model: model.map(str::to_owned),
                address: format!("tcp://10.0.0.{id}:1"),
                reason: reason.to_owned(),
            };
            unreached.workers.insert(WorkerId(id), worker);
            unreached.sentences()
        };
        let one = "1 worker of model a is registered and cannot be reached \
            (tcp://10.0.0.1:1): refused";
        assert_eq!(add(1, Some("a"), "refused"), [one]);
        let two = "2 workers of model a are registered and cannot be reached, such as \
            tcp://10.0.0.1:1: refused";
        assert_eq!(add(2, Some("a"), "silent"), [two]);
        let strange = "1 worker whose card cannot be read is registered and cannot be reached \
            (tcp://10.0.0.3:1): refused";
        assert_eq!(add(3, None, "refused"), [strange, two]);
        for worker in 10..20 {
            add(worker, Some(&format!("m{worker}")), "refused");
        }
        let told = unreached.sentences();
        assert_eq!(told.len(), MOST_MODELS + 1);
        assert_eq!(told[MOST_MODELS], "the same is so of 4 more models");

        unreached.remove(WorkerId(3));
        assert!(!unreached.sentences().contains(&strange.to_owned()));
    }
}
