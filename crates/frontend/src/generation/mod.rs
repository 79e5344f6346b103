//! From a request's body to the parts of its answer, whichever API they are for.

mod answering;
mod attempt;
mod carried;
mod echo;
mod placing;
mod prepare;
mod remainder;
mod waiting;

pub(crate) use answering::{Answering, Part};
pub(crate) use carried::{Carried, Unstarted};
pub(crate) use prepare::{Prepared, Unprepared, prepare_chat, prepare_completion};
pub(crate) use waiting::{Waiting, WaitingPlace};
