//! Workers of a deployment within the process of a test.

use std::sync::Arc;

use bytes::Bytes;
use forebay_engine::remote::{
    ArtefactDigest, Artefacts, EngineHandler, WorkerCard, engine_endpoint,
};
use forebay_engine::{Engine, Error, ErrorClass};
use forebay_protocols::worker::artefact::Content;
use forebay_protocols::worker::worker_request::Operation;
use forebay_protocols::worker::{ArtefactRequest, GgufVocabulary, WorkerRequest};
use forebay_runtime::{
    Instance, Planes, Registration, ResponseStream, Served, StreamHandler, StreamRequest,
};
use forebay_tokens::WorkerId;
use futures::{StreamExt as _, stream};
use prost::Message as _;

use crate::engine::ScriptedEngine;
use crate::server::NAMESPACE;

/// A worker on the planes, until it is dropped.
pub(crate) struct Joined {
    registration: Box<dyn Registration>,
    served: Box<dyn Served>,
}

impl Joined {
    /// It says goodbye, and what runs there goes on.
    pub(crate) async fn leave(self) -> Box<dyn Served> {
        self.registration.deregister().await.unwrap();
        self.served
    }

    /// It takes nothing new for a while, or does again.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.served.set_paused(is_paused);
    }

    /// Where it is served.
    pub(crate) fn address(&self) -> &str {
        self.served.address()
    }
}

/// A worker that is about to join.
pub(crate) struct Joining {
    pub(crate) card: WorkerCard,
    artefacts: Artefacts,
    engine: Arc<ScriptedEngine>,
    instead: Option<Instead>,
}

/// What is given to who asks for an artefact.
#[derive(Clone, Copy)]
enum Instead {
    Other(ArtefactDigest),
    Nothing,
    Refusal,
}

impl Joining {
    /// A worker for a model whose tokens are bytes.
    pub(crate) fn new(model: &str, engine: &Arc<ScriptedEngine>) -> Self {
        let mut artefacts = Artefacts::new();
        let tokenizer = artefacts.insert(Content::GgufVocabulary(byte_vocabulary()));
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let template = artefacts.insert(Content::Template(template.into()));
        Self {
            card: WorkerCard {
                tokenizer: Some(tokenizer),
                template: Some(template),
                ..WorkerCard::new(model, engine.info().clone())
            },
            artefacts,
            engine: engine.clone(),
            instead: None,
        }
    }

    /// One that another engine answers for.
    pub(crate) fn with_engine(mut self, engine: &Arc<ScriptedEngine>) -> Self {
        self.engine = engine.clone();
        self
    }

    /// One with another card.
    pub(crate) fn with_card(mut self, card: WorkerCard) -> Self {
        self.card = card;
        self
    }

    /// One with other weights.
    pub(crate) fn with_weights(mut self, weights: &str) -> Self {
        self.card.weights = weights.into();
        self
    }

    /// One with another name for its model.
    pub(crate) fn with_alias(mut self, alias: &str) -> Self {
        self.card.aliases.push(alias.into());
        self
    }

    /// One with another chat template.
    pub(crate) fn with_template(mut self, template: &str) -> Self {
        let template = self.artefacts.insert(Content::Template(template.into()));
        self.card.template = Some(template);
        self
    }

    /// One that gives its template where its tokenizer is asked for.
    pub(crate) fn lying(mut self) -> Self {
        self.instead = self.card.template.map(Instead::Other);
        self
    }

    /// One that never gives its tokenizer to who asks.
    pub(crate) fn silent(mut self) -> Self {
        self.instead = Some(Instead::Nothing);
        self
    }

    /// One that cannot give its tokenizer now.
    pub(crate) fn busy(mut self) -> Self {
        self.instead = Some(Instead::Refusal);
        self
    }

    pub(crate) async fn join(self, planes: &Planes, worker: WorkerId) -> Joined {
        let endpoint = engine_endpoint(NAMESPACE).unwrap();
        let handler = EngineHandler::new(self.engine.clone());
        let handler = Answering {
            handler: handler.with_artefacts(Arc::new(self.artefacts.clone())),
            instead: self.instead,
        };
        let serving = planes.requests.serve(&endpoint, worker, Arc::new(handler));
        let served = serving.await.unwrap();
        let registration = self.register(planes, worker, served.address()).await;
        Joined {
            registration,
            served,
        }
    }

    /// Makes a worker known that is served at `address`.
    pub(crate) async fn register(
        &self,
        planes: &Planes,
        worker: WorkerId,
        address: &str,
    ) -> Box<dyn Registration> {
        let instance = Instance {
            endpoint: engine_endpoint(NAMESPACE).unwrap(),
            worker,
            address: address.to_owned(),
            card: self.card.encode(),
        };
        planes.discovery.register(instance).await.unwrap()
    }
}

struct Answering {
    handler: EngineHandler,
    instead: Option<Instead>,
}

impl StreamHandler for Answering {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let asked = WorkerRequest::decode(&request.first[..]).unwrap();
        match (asked.operation, self.instead) {
            (Some(Operation::Artefact(_)), Some(Instead::Nothing)) => stream::pending().boxed(),
            (Some(Operation::Artefact(_)), Some(Instead::Refusal)) => {
                let error = Error::new(ErrorClass::Unavailable, "busy", "not now");
                stream::iter([Err(error)]).boxed()
            }
            (Some(Operation::Artefact(_)), Some(Instead::Other(other))) => {
                let digest = other.0.to_vec();
                let operation = Some(Operation::Artefact(ArtefactRequest { digest }));
                let request = WorkerRequest { operation }.encode_to_vec();
                self.handler.handle(StreamRequest::of(Bytes::from(request)))
            }
            _ => self.handler.handle(request),
        }
    }
}

/// Each byte is a token of its own, and one that ends an answer comes after them.
fn byte_vocabulary() -> GgufVocabulary {
    // How byte-level vocabularies write the bytes that are not printable Latin-1.
    let mut others = (0x100..).filter_map(char::from_u32);
    let byte = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => others.next().unwrap(),
    };
    let mut tokens: Vec<_> = (0..=u8::MAX).map(byte).map(String::from).collect();
    tokens.push("<|end|>".into());
    let mut token_types = vec![1; 256];
    token_types.push(3);
    GgufVocabulary {
        model: "gpt2".into(),
        pre: "gpt-2".into(),
        tokens,
        token_types,
        eos: Some(256),
        ..GgufVocabulary::default()
    }
}
