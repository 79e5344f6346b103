use super::card::WorkerCard;
use crate::{Error, ErrorClass};

/// Why a card does not follow another one of the same worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardChangeError {
    /// Its digest is another one.
    #[error("a card of another version of the model: that is another worker's to have")]
    OtherVersion,
    /// Something else differs that stays as it is while a worker runs.
    #[error("{0} cannot change while the worker runs")]
    Fixed(&'static str),
    /// Its weight is none.
    #[error("the weight must be from 0 to {max}", max = WorkerCard::MAX_WEIGHT)]
    Weight,
}

impl WorkerCard {
    /// Whether `next` can be the card of the same worker, later: it differs in aliases, capacity
    /// ([`max_batch_tokens`](Self::max_batch_tokens) and
    /// [`max_running_sequences`](Self::max_running_sequences)), adapters, topology, weight and
    /// revision at most. Whether it *is* later is the revision's to say.
    ///
    /// # Errors
    ///
    /// [`CardChangeError`], for the first that is in its way.
    pub fn check_change(&self, next: &Self) -> Result<(), CardChangeError> {
        if next.digest() != self.digest() {
            return Err(CardChangeError::OtherVersion);
        }
        let fixed = [
            (next.model != self.model, "the model's name"),
            (next.engine != self.engine, "the engine"),
            (next.role != self.role, "the role"),
            (
                next.sampling_defaults != self.sampling_defaults,
                "the sampling defaults",
            ),
        ];
        if let Some((_, what)) = fixed.into_iter().find(|(differs, _)| *differs) {
            return Err(CardChangeError::Fixed(what));
        }
        match Self::is_weight(next.weight) {
            true => Ok(()),
            false => Err(CardChangeError::Weight),
        }
    }
}

/// What is told to who wanted the change.
impl From<CardChangeError> for Error {
    fn from(error: CardChangeError) -> Self {
        let (class, reason, field) = match error {
            CardChangeError::OtherVersion => (ErrorClass::Conflict, "other_version", None),
            CardChangeError::Fixed(_) => (ErrorClass::Conflict, "fixed_while_running", None),
            CardChangeError::Weight => {
                (ErrorClass::InvalidRequest, "invalid_value", Some("weight"))
            }
        };
        let told = Self::new(class, reason, error.to_string());
        match field {
            Some(field) => told.with_param(field),
            None => told,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::remote::WorkerRole;
    use crate::remote::card::tests::bare as card;

    fn checked(change: impl FnOnce(&mut WorkerCard)) -> Result<(), CardChangeError> {
        let mut next = card();
        change(&mut next);
        card().check_change(&next)
    }

    #[test]
    fn what_is_a_worker_s_own_may_change() {
        let all = checked(|card| {
            card.aliases.push("other".into());
            card.max_batch_tokens = Some(1);
            card.max_running_sequences = Some(1);
            card.lora_adapters.push("adapter".into());
            card.topology.insert("zone".into(), "b".into());
            card.weight = 0.0;
            card.revision = 9;
        });
        assert_eq!(all, Ok(()));
    }

    #[test]
    fn what_makes_another_worker_of_it_may_not() {
        use CardChangeError::{Fixed, OtherVersion, Weight};
        type Change = fn(&mut WorkerCard);
        let changes: [(Change, CardChangeError); 8] = [
            (|card| card.weights.push('1'), OtherVersion),
            (|card| card.engine.context_length += 1, OtherVersion),
            (|card| card.model.push('1'), Fixed("the model's name")),
            (|card| card.engine.kv_blocks += 1, Fixed("the engine")),
            (|card| card.role = WorkerRole::Decode, Fixed("the role")),
            (
                |card| card.sampling_defaults.top_p = Some(0.5),
                Fixed("the sampling defaults"),
            ),
            (|card| card.weight = -0.5, Weight),
            (|card| card.weight = f64::NAN, Weight),
        ];
        for (change, error) in changes {
            assert_eq!(checked(change), Err(error));
        }
    }

    #[test]
    fn who_wanted_it_is_told_in_the_product_s_terms() {
        let error = Error::from(CardChangeError::OtherVersion);
        assert_eq!(
            (error.class, &*error.reason),
            (ErrorClass::Conflict, "other_version")
        );
        let error = Error::from(CardChangeError::Weight);
        assert_eq!(error.param.as_deref(), Some("weight"));
        assert_eq!(error.message, "the weight must be from 0 to 1000000");
    }
}
