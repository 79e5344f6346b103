use bytes::Bytes;
use forebay_protocols::{Error, worker};
use forebay_tokens::BlockSize;

use super::frames::{broken, decode, encode};
use crate::{Capabilities, EngineInfo};

/// What a worker says about itself in its [`Instance::card`](forebay_runtime::Instance::card).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCard {
    /// The name under which its model is served.
    pub model: String,
    /// Its engine.
    pub engine: EngineInfo,
}

impl WorkerCard {
    /// The card as it is registered: a `WorkerCard` of `worker.proto`.
    pub fn encode(&self) -> Bytes {
        let engine = self.engine.clone();
        encode(&worker::WorkerCard {
            model: self.model.clone(),
            engine: Some(worker::EngineInfo {
                model: engine.model,
                capabilities: engine.capabilities.bits(),
                context_length: engine.context_length,
                vocabulary_size: engine.vocabulary_size,
                block_size: u32::try_from(engine.block_size.get()).expect("made of a u32"),
                kv_blocks: engine.kv_blocks,
                eos_token_ids: engine.eos_token_ids,
                data_parallel_ranks: engine.data_parallel_ranks,
            }),
        })
    }

    /// Reads a card. Capabilities that this version does not know are left out.
    ///
    /// # Errors
    ///
    /// `BackendProtocol`, if it is no card or lacks what an engine must say.
    pub fn decode(card: Bytes) -> Result<Self, Error> {
        let card: worker::WorkerCard = decode(card)?;
        let engine = card.engine.ok_or_else(|| broken("a card without engine"))?;
        if engine.data_parallel_ranks == 0 {
            return Err(broken("an engine without data-parallel ranks"));
        }
        Ok(Self {
            model: card.model,
            engine: EngineInfo {
                model: engine.model,
                capabilities: Capabilities::from_bits_truncate(engine.capabilities),
                context_length: engine.context_length,
                vocabulary_size: engine.vocabulary_size,
                block_size: BlockSize::new(engine.block_size)
                    .map_err(|error| broken(&error.to_string()))?,
                kv_blocks: engine.kv_blocks,
                eos_token_ids: engine.eos_token_ids,
                data_parallel_ranks: engine.data_parallel_ranks,
            },
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_protocols::ErrorClass;

    use super::*;

    fn card() -> WorkerCard {
        WorkerCard {
            model: "served".into(),
            engine: EngineInfo {
                model: "own".into(),
                capabilities: Capabilities::all(),
                context_length: 4096,
                vocabulary_size: 32_000,
                block_size: BlockSize::new(64).unwrap(),
                kv_blocks: 1000,
                eos_token_ids: vec![2, 7],
                data_parallel_ranks: 3,
            },
        }
    }

    #[test]
    fn a_card_is_read_as_it_was_written() {
        assert_eq!(WorkerCard::decode(card().encode()).unwrap(), card());
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let mut without_ranks = card();
        without_ranks.engine.data_parallel_ranks = 0;
        let bad = [
            Bytes::new(),
            Bytes::from_static(b"\xff\xff"),
            without_ranks.encode(),
            encode(&worker::WorkerCard {
                model: String::new(),
                engine: Some(worker::EngineInfo {
                    data_parallel_ranks: 1,
                    ..Default::default()
                }),
            }),
        ];
        for card in bad {
            let error = WorkerCard::decode(card).unwrap_err();
            assert_eq!(error.class, ErrorClass::BackendProtocol);
        }
    }

    #[test]
    fn capabilities_of_the_future_are_left_out() {
        let mut message: worker::WorkerCard = decode(card().encode()).unwrap();
        message.engine.as_mut().unwrap().capabilities |= 1 << 31;
        let read = WorkerCard::decode(encode(&message)).unwrap();
        assert_eq!(read.engine.capabilities, Capabilities::all());
    }
}
