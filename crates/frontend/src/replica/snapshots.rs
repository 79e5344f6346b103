use std::sync::Arc;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_router::BookingSnapshot;
use forebay_runtime::{Instance, Planes, ResponseStream, StreamHandler, StreamRequest};
use futures::{StreamExt as _, stream};

use super::Owner;
use super::wire::{ask_snapshot, asks_snapshot, read_part, write_snapshot};

/// Answers other frontends that have missed something.
pub(super) struct Snapshots(pub(super) Arc<Owner>);

impl StreamHandler for Snapshots {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let parts = match asks_snapshot(&request.first) {
            Ok(true) => {
                let parts = write_snapshot(self.0.snapshot());
                parts.into_iter().map(Ok).collect()
            }
            Ok(false) => {
                let message = "this frontend does not know the operation";
                let error = Error::new(ErrorClass::Unsupported, "unknown_operation", message);
                vec![Err(error)]
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter::<Vec<Result<Bytes, Error>>>(parts).boxed()
    }
}

/// Asks another frontend for all that it has booked.
pub(super) async fn fetch(planes: &Planes, instance: &Instance) -> Result<BookingSnapshot, Error> {
    let request = StreamRequest::of(ask_snapshot());
    let mut parts = planes.requests.open(&instance.address, request);
    let mut snapshot = BookingSnapshot::default();
    while let Some(part) = parts.next().await {
        read_part(&part?, &mut snapshot)?;
    }
    Ok(snapshot)
}
