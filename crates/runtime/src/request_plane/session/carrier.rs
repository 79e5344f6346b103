//! How a plane reaches what other processes serve, by the addresses that it has given out.

use std::str::FromStr;
use std::sync::Arc;

use forebay_protocols::Error;
use futures::future::{self, BoxFuture};
use futures::{FutureExt as _, StreamExt as _, stream};

use super::confirm::{question, read_confirmation};
use super::peer_watch::watch_peer;
use super::{CONFIRM_TARGET, PEER_TARGET};
use crate::discovery::Instance;
use crate::request_plane::{PeerWatch, ResponseStream, StreamRequest, worker_unreachable};
use crate::tasks::Tasks;

/// A plane whose streams to other processes go over sessions: what is said of addresses, whatever
/// carries the sessions.
pub(crate) trait Carrier: Clone + Send + Sync + 'static {
    /// Where a process is, and what it serves.
    type Address: FromStr;

    /// What is served at an address.
    fn target(address: &Self::Address) -> String;

    /// A stream to what an address's process serves at `target`.
    fn open_target(
        &self,
        address: Self::Address,
        target: String,
        request: StreamRequest,
    ) -> ResponseStream;

    /// The tasks of its process.
    fn tasks(&self) -> &Tasks;

    /// A stream to what `target` makes of an address; to nobody, if it is none of this plane's.
    fn open_at(
        &self,
        address: &str,
        target: impl FnOnce(&Self::Address) -> String,
        request: StreamRequest,
    ) -> ResponseStream {
        match address.parse() {
            Ok(parsed) => {
                let target = target(&parsed);
                self.open_target(parsed, target, request)
            }
            Err(_) => unreachable(address),
        }
    }

    /// How things stand with who serves an address.
    fn watch_at(&self, address: &str) -> PeerWatch {
        let carrier = self.clone();
        let address = address.to_owned();
        let open = move || match address.parse() {
            Ok(parsed) => {
                let request = StreamRequest::of(Self::target(&parsed).into());
                carrier.open_target(parsed, PEER_TARGET.to_owned(), request)
            }
            Err(_) => unreachable(&address),
        };
        watch_peer(Arc::new(open), self.tasks().clone())
    }

    /// Whether an instance is what its address's process says it is.
    fn confirm_at(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        match instance.address.parse() {
            Ok(parsed) => {
                let target = CONFIRM_TARGET.to_owned();
                read_confirmation(self.open_target(parsed, target, question(instance))).boxed()
            }
            Err(_) => future::ready(Ok(false)).boxed(),
        }
    }
}

fn unreachable(address: &str) -> ResponseStream {
    stream::iter([Err(worker_unreachable(address))]).boxed()
}
