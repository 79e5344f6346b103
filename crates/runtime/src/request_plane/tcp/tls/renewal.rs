//! Certificates that are renewed while the process runs.

use std::sync::Arc;
use std::time::Duration;

use forebay_observability::ErrorChain;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Tls;
use super::files::Files;
use crate::health::Degradation;
use crate::tasks::Tasks;

/// Looks at the files every `interval`, and uses what is new in them for new connections. What has
/// changed is used once two looks have seen the same, for files are not written in one go. If it
/// cannot be used, that is told, and what was there before stays.
///
/// What is in the files is compared, and not when they were written: a link to another directory
/// (as Kubernetes' secrets are) and a copy with an old date are changes like any others.
pub(in super::super) async fn renew(
    tls: Arc<Tls>,
    interval: Duration,
    tasks: Tasks,
    degradation: Degradation,
) {
    // None, as long as they cannot be read.
    let mut judged = Some(tls.files.clone());
    let mut last = judged.clone();
    loop {
        sleep(interval).await;
        let looking = tls.clone();
        let reading = tasks.run_blocking("certificates", move || Files::read(&looking.config));
        let Ok(look) = reading.await else {
            continue;
        };
        let files = look.as_ref().ok();
        let has_settled = files == last.as_ref();
        let is_news = files != judged.as_ref();
        last = files.cloned();
        if !has_settled || !is_news {
            continue;
        }
        judged = last.clone();
        // It reads the system's authorities, where no others are set: hundreds of files.
        let taken = match look {
            Ok(files) => {
                let tls = tls.clone();
                let taking = tasks.run_blocking("certificates", move || tls.take(&files));
                let Ok(taken) = taking.await else {
                    continue;
                };
                taken
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                info!("the certificates were read anew");
                degradation.clear();
            }
            Err(error) => {
                let error = ErrorChain(&error);
                warn!(%error, "the certificates changed and cannot be used; the earlier ones stay");
                degradation.set("the certificates changed and cannot be used");
            }
        }
    }
}
