use std::sync::Arc;

use forebay_protocols::Error;
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};

use super::services::Services;
use super::{PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest};
use crate::discovery::Instance;
use crate::names::EndpointId;
use crate::planes::PlaneError;

/// A request plane within a process. Clones are handles on the same one.
///
/// It has no task and no buffer. The client polls the handler's stream and the handler polls the
/// client's, so there is no frame that nobody asked for; what the client drops is dropped on the
/// spot.
///
/// When the server stops, a stream's client is woken and gets the error; the handler's part is
/// dropped then.
#[derive(Clone, Debug, Default)]
pub struct InProcessPlane {
    services: Services,
}

impl InProcessPlane {
    /// Nothing is served.
    pub fn new() -> Self {
        Self::default()
    }
}

impl RequestPlane for InProcessPlane {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        let address = format!("process:{endpoint}/{worker}");
        async move { self.services.serve(address.clone(), address, handler) }.boxed()
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        self.services.open(address, request)
    }

    fn peer(&self, address: &str) -> PeerWatch {
        self.services.peer(address)
    }

    /// Who is in the same process is believed.
    fn confirm(&self, _: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        future::ready(Ok(true)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::request_plane_conformance_tests!(InProcessPlane::new());
}
