use forebay_tokens::{BlockSize, TokenId};

use crate::{Error, ErrorClass};

/// What one engine can take: what requests are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Token ids are below this.
    pub vocabulary_size: usize,
    /// The most tokens of a sequence, prompt and answer together.
    pub context_length: usize,
    /// KV blocks in all.
    pub kv_blocks: usize,
    /// Tokens a KV block.
    pub block_size: BlockSize,
}

impl RequestLimits {
    pub(super) fn check_tokens(&self, field: &str, tokens: &[TokenId]) -> Result<(), Error> {
        let size = self.vocabulary_size;
        // The greatest of them is found many at a time; nearly all requests end here.
        let greatest = tokens
            .iter()
            .fold(0, |greatest, token| greatest.max(*token));
        if tokens.is_empty() || (greatest as usize) < size {
            return Ok(());
        }
        let rule = format!("token {greatest} is not in the vocabulary of {size}");
        Err(Error::invalid(field, rule))
    }

    /// How many tokens a choice may have in all.
    pub(super) fn budget(
        &self,
        prompt: usize,
        emitted: usize,
        max_tokens: Option<u32>,
    ) -> Result<usize, Error> {
        let context = self.context_length;
        if prompt + emitted >= context {
            let message = format!(
                "the context length is {context} tokens, and {} leave no room for another",
                prompt + emitted
            );
            let class = ErrorClass::InvalidRequest;
            return Err(Error::new(class, "context_length_exceeded", message)
                .with_param("prompt_token_ids"));
        }
        let room = context - prompt;
        // The last token needs no KV. Without a budget of its own, a choice gets what fits.
        let (budget, least) = match max_tokens {
            Some(asked) => {
                let asked = asked as usize;
                if emitted >= asked {
                    let rule = format!("the choice has {emitted} tokens already");
                    return Err(Error::invalid("stop.max_tokens", rule));
                }
                (asked.min(room), asked.min(room))
            }
            None => {
                let fits = (self.kv_blocks * self.block_size.get() + 1).saturating_sub(prompt);
                (room.min(fits), emitted + 1)
            }
        };
        let needed = self.block_size.blocks_for(prompt + least - 1);
        if needed > self.kv_blocks {
            let message = format!(
                "the request needs {needed} KV blocks of {} tokens, and the engine has {}",
                self.block_size, self.kv_blocks
            );
            return Err(Error::new(
                ErrorClass::TooLarge,
                "kv_cache_exceeded",
                message,
            ));
        }
        Ok(budget)
    }
}
