use std::hash::Hash;

use forebay_protocols::Error;
use forebay_protocols::worker::{FinishReason, GenerateOutput};
use rustc_hash::FxHashMap;

use super::{OutputWriter, Unwanted};

/// The writers of the choices that an engine has, by the engine's own names for them.
///
/// A choice's writer is here until its last output.
#[derive(Debug)]
pub struct Writers<K>(FxHashMap<K, OutputWriter>);

impl<K> Default for Writers<K> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<K: Copy + Eq + Hash> Writers<K> {
    /// The engine has taken a choice.
    pub fn insert(&mut self, choice: K, writer: OutputWriter) {
        self.0.insert(choice, writer);
    }

    /// Hands a choice's next output over; never waits. Nothing happens if nobody wants it any more.
    pub fn hand_over(&mut self, choice: K, output: Result<GenerateOutput, Error>) {
        match output {
            Ok(output) if output.finish_reason() == FinishReason::Unspecified => {
                if let Some(writer) = self.0.get(&choice) {
                    writer.send(output);
                }
            }
            Ok(last) => {
                if let Some(writer) = self.0.remove(&choice) {
                    writer.send(last);
                }
            }
            Err(error) => {
                if let Some(writer) = self.0.remove(&choice) {
                    writer.fail(error);
                }
            }
        }
    }

    /// Ends the choices that nobody wants any more: `abort` ends one in the engine and gives its
    /// last output, if it was there.
    pub fn end_unwanted(&mut self, mut abort: impl FnMut(K) -> Option<GenerateOutput>) {
        let unwanted: Vec<_> = self
            .0
            .iter()
            .filter_map(|(choice, writer)| Some((*choice, writer.unwanted()?)))
            .collect();
        for (choice, why) in unwanted {
            let last = abort(choice);
            let writer = self.0.remove(&choice);
            let (Some(writer), Some(mut last)) = (writer, last) else {
                continue;
            };
            match why {
                Unwanted::Dropped => continue,
                Unwanted::Aborted => {}
                Unwanted::Stopped => last.finish_reason = FinishReason::Enough.into(),
            }
            writer.send(last);
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
