use std::sync::Arc;

use forebay_engine::remote::{CardChangeError, KvFigures, WorkerCard};
use forebay_engine::{Control, Error, Load};
use forebay_tokens::WorkerId;
use tokio::sync::watch;

use crate::own_card::OwnCard;
use crate::standing::{Standing, engine_lost};

/// What can be seen of a [`Worker`](crate::Worker) and asked of it in its own process. Cloning
/// copies pointers.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    pub(crate) id: WorkerId,
    pub(crate) card: OwnCard,
    pub(crate) standing: watch::Receiver<Option<Standing>>,
}

impl WorkerHandle {
    /// Who it is.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// What it says about itself now.
    pub fn card(&self) -> Arc<WorkerCard> {
        self.card.get()
    }

    /// Changes what it says about itself, and gives the revision that the card has then. Who follows
    /// its reports knows it at once, also while discovery is away; the worker is registered again
    /// with it as soon as discovery takes that. Nothing is told of a change that changes nothing.
    ///
    /// Weight, topology, adapters, aliases and capacity may change:
    /// [`WorkerCard::check_change`] says what may not. The revision is counted here.
    ///
    /// # Errors
    ///
    /// [`CardChangeError`]; then nothing has changed.
    pub fn update_card(
        &self,
        change: impl FnOnce(&mut WorkerCard),
    ) -> Result<u64, CardChangeError> {
        self.card.update(change)
    }

    /// Where it is served; `None` while its engine is gone.
    pub fn address(&self) -> Option<String> {
        let standing = self.standing.borrow();
        standing.as_ref().map(|standing| standing.address.clone())
    }

    /// Whether others find it.
    pub fn is_registered(&self) -> bool {
        let standing = self.standing.borrow();
        standing.as_ref().is_some_and(|now| now.is_registered)
    }

    /// Whether an operator has paused its engine: then it is out of discovery, and refuses
    /// generations.
    pub fn is_paused(&self) -> bool {
        let standing = self.standing.borrow();
        standing.as_ref().is_some_and(|now| now.handler.is_paused())
    }

    /// What its engine has to do and holds; `None` while the engine is gone.
    pub fn load(&self) -> Option<Load> {
        let standing = self.standing.borrow();
        standing.as_ref().map(|now| now.handler.load())
    }

    /// What its engine's KV events come to; `None` while the engine is gone.
    pub fn kv_figures(&self) -> Option<KvFigures> {
        let standing = self.standing.borrow();
        standing.as_ref().map(|now| now.handler.kv_figures())
    }

    /// Changes the engine's state, as an operator wants it. A pause takes the worker out of
    /// discovery, and what runs or waits in the engine stays there; the end of it brings the worker
    /// back.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the engine is gone, and what the engine says.
    pub async fn control(&self, control: Control) -> Result<(), Error> {
        let standing = self.standing.borrow().clone();
        match standing {
            Some(standing) => standing.handler.control(control).await,
            None => Err(engine_lost()),
        }
    }
}
