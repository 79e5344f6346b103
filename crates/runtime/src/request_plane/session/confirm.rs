//! Whether a record is its peer's own.

use bytes::Bytes;
use forebay_protocols::Error;
use forebay_protocols::discovery::InstanceRecord;
use futures::{StreamExt as _, stream};
use prost::Message as _;

use super::error;
use crate::discovery::{Instance, instance_record};
use crate::request_plane::services::Services;
use crate::request_plane::{ResponseStream, StreamHandler, StreamRequest, worker_unreachable};

/// What the answer says: it is.
const OWN: &[u8] = &[1];
/// It is not.
const NOT_OWN: &[u8] = &[0];

/// Answers at [`CONFIRM_TARGET`](super::CONFIRM_TARGET): whether the record that the first frame has
/// is what is served here, one byte.
pub(crate) struct ConfirmHandler(pub(crate) Services);

impl StreamHandler for ConfirmHandler {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let answer = match InstanceRecord::decode(request.first) {
            Ok(record) => {
                let target = format!("{}/{:016x}", record.endpoint, record.worker);
                match self.0.has_announced(&target, &record.card) {
                    Some(true) => Ok(Bytes::from_static(OWN)),
                    Some(false) => Ok(Bytes::from_static(NOT_OWN)),
                    // It begins just now, or ends.
                    None => Err(worker_unreachable(&target)),
                }
            }
            Err(_) => Err(error::broken("a record that is none")),
        };
        stream::iter([answer]).boxed()
    }
}

/// What a [`ConfirmHandler`] is asked about an instance.
pub(crate) fn question(instance: &Instance) -> StreamRequest {
    StreamRequest::of(instance_record(instance, 0, 0).encode_to_vec().into())
}

/// Reads the answer of a [`ConfirmHandler`].
pub(crate) async fn read_confirmation(mut answer: ResponseStream) -> Result<bool, Error> {
    match answer.next().await {
        Some(Ok(frame)) => Ok(frame == OWN),
        Some(Err(error)) => Err(error),
        None => Err(error::broken("no answer to a record")),
    }
}
