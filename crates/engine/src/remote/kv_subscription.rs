//! The KV events of a worker, as its engine would give them.

use forebay_protocols::worker::{self, KvSnapshotRequest, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{EventStream, Instance, Planes, StreamRequest};
use forebay_tokens::DpRank;
use futures::{StreamExt as _, stream};

use super::frames::{ask, broken, decode, read_batch};
use super::kv_publisher::LAGGED;
use super::kv_sequence::{KvSequence, Verdict};
use super::names::kv_topic;
use crate::{KvEventBatch, KvEventStream};

/// Snapshots over the request plane, then the changes that follow on them over the event plane.
///
/// The subscription is made first, so that no change is between the two. It begins when the
/// stream is first polled.
pub(super) fn subscribe(planes: Planes, instance: Instance) -> KvEventStream {
    let begin = async move {
        match begin(&planes, &instance).await {
            Ok((snapshots, changes)) => {
                let snapshots = stream::iter(snapshots.into_iter().map(Ok));
                let changes = stream::unfold(Some(changes), |changes| async {
                    let mut changes = changes?;
                    match changes.next().await {
                        Ok(batch) => Some((Ok(batch), Some(changes))),
                        Err(error) => Some((Err(error), None)),
                    }
                });
                snapshots.chain(changes).boxed()
            }
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    };
    stream::once(begin).flatten().boxed()
}

async fn begin(
    planes: &Planes,
    instance: &Instance,
) -> Result<(Vec<KvEventBatch>, Changes), Error> {
    let topic = kv_topic(&instance.endpoint, instance.worker);
    let subscribed = planes.events.subscribe(&topic, instance).await;
    let events = subscribed.map_err(|error| {
        let message = "the KV events cannot be reached";
        Error::new(ErrorClass::Unavailable, "kv_events_unreachable", message)
            .with_diagnostic(error.to_string())
    })?;
    let request = StreamRequest::of(ask(Operation::KvSnapshot(KvSnapshotRequest {})));
    let mut frames = planes.requests.open(&instance.address, request);
    let mut snapshots = Vec::new();
    let mut sequence = KvSequence::default();
    while let Some(frame) = frames.next().await {
        let snapshot: worker::KvSnapshot = decode(frame?)?;
        let batch = snapshot.batch.ok_or_else(|| broken("an empty snapshot"))?;
        let batch = read_batch(batch);
        if sequence.snapshot(snapshot.epoch, batch.rank, batch.sequence) == Verdict::Gap {
            return Err(lagged("the snapshots are of two epochs"));
        }
        snapshots.push(batch);
    }
    let changes = Changes {
        instance: instance.clone(),
        events,
        sequence,
    };
    Ok((snapshots, changes))
}

/// The changes after the snapshots.
struct Changes {
    instance: Instance,
    events: EventStream,
    sequence: KvSequence,
}

impl Changes {
    /// The next change; after an error there is none.
    async fn next(&mut self) -> Result<KvEventBatch, Error> {
        loop {
            let event = self.events.next().await;
            let event = event.ok_or_else(|| lagged("the subscription has ended"))?;
            let event = event.map_err(|error| lagged(&error.to_string()))?;
            if event.stamp.publisher != self.instance.worker {
                continue;
            }
            let batch: worker::KvEventBatch = decode(event.payload)?;
            let (epoch, sequence) = (event.stamp.epoch, batch.sequence);
            let rank = DpRank(batch.rank);
            // Without events it only says how far the publisher is.
            let verdict = match batch.events.is_empty() {
                true => self.sequence.mark(epoch, rank, sequence),
                false => self.sequence.change(epoch, rank, sequence),
            };
            match verdict {
                Verdict::Next => return Ok(read_batch(batch)),
                Verdict::Known => {}
                Verdict::Gap => {
                    return Err(lagged(&format!("batch {sequence} of rank {rank} is early")));
                }
            }
        }
    }
}

fn lagged(diagnostic: &str) -> Error {
    let message = "KV events were lost";
    Error::new(ErrorClass::Unavailable, LAGGED, message).with_diagnostic(diagnostic)
}
