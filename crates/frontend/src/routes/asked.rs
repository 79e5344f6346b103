use std::sync::Arc;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{BlockingError, Context};
use forebay_tokens::RequestId;

use crate::api::Api;
use crate::app::App;
use crate::generation::{
    Answering, Carried, Prepared, Unprepared, Unstarted, WaitingPlace, prepare_chat,
    prepare_completion,
};
use crate::metrics::Stage;
use crate::models::ServedModel;
use crate::record::Record;

/// A request as it was read. Where its model has versions, it is kept until the answer begins: each
/// has a text and limits of its own.
pub(super) struct Asked<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) id: RequestId,
    pub(super) body: Bytes,
    pub(super) api: Api,
    pub(super) context: Context,
}

impl Asked<'_> {
    /// Prepares it; for a version of its model that has workers, if one comes to have them in time.
    /// A model that is on its way is waited for, too. Where it has waited, it keeps its place.
    pub(super) async fn prepare_when_ready(
        &self,
        record: &mut Record,
    ) -> Result<(Prepared, Option<Arc<WaitingPlace>>), Error> {
        let models = &self.app.models;
        let asked_model = match self.prepare(None).await {
            Ok(prepared) => {
                let model = &prepared.model;
                record.for_model(model.name());
                record.passed(Stage::Prepare);
                if model.version().is_none() || model.pool().ready_workers() > 0 {
                    return Ok((prepared, None));
                }
                prepared.asked_model
            }
            Err(Unprepared::NoModel(name)) if models.may_have(&name) => {
                record.passed(Stage::Prepare);
                name
            }
            Err(unprepared) => return Err(unprepared.into()),
        };
        let waiting = &self.app.waiting;
        let place = waiting.for_model(models, &asked_model, &self.context);
        let place = place.await?;
        let prepared = self.prepare(None).await?;
        record.for_model(prepared.model.name());
        Ok((prepared, Some(place)))
    }

    /// Starts it where it is prepared for, or at another version of its model, prepared for that
    /// anew, if there is a worker for it there only.
    pub(super) async fn start(
        mut self,
        mut prepared: Prepared,
        mut carried: Carried,
    ) -> Result<Answering, Error> {
        if prepared.model.version().is_none() {
            // It is not prepared again: what the body holds of the budget is given back.
            self.body = Bytes::new();
        }
        loop {
            let context = self.context.clone();
            let (version, with) = match Answering::start(prepared, carried, context, self.app).await
            {
                Ok(answering) => return Ok(answering),
                Err(Unstarted::Failed(error)) => return Err(error),
                Err(Unstarted::Over(version, with)) => (version, with),
            };
            match self.prepare(Some(version)).await {
                Ok(anew) => (prepared, carried) = (anew, *with),
                Err(unprepared) => {
                    let error = unprepared.into();
                    with.record.failed(&error);
                    return Err(error);
                }
            }
        }
    }

    async fn prepare(&self, version: Option<Arc<ServedModel>>) -> Result<Prepared, Unprepared> {
        let is_short = self.app.is_short(&self.body);
        let work = {
            let (app, id, body) = (self.app.clone(), self.id.clone(), self.body.clone());
            let prepare = match self.api {
                Api::Chat => prepare_chat,
                Api::Completion => prepare_completion,
            };
            move || prepare(&body, id, version, &app.models, &app.limits)
        };
        if is_short {
            return work();
        }
        match self.app.tasks.run_blocking("tokenize", work).await {
            Ok(prepared) => prepared,
            Err(BlockingError::Cancelled) => Err(Error::new(
                ErrorClass::Unavailable,
                "shutting_down",
                "the server is shutting down",
            )
            .into()),
            Err(error) => Err(Error::internal(error.to_string()).into()),
        }
    }
}
