//! The mocker in virtual time.
#![allow(clippy::unwrap_used)]

mod answers;
mod capacity;
mod driver;
mod faults;
mod histories;
mod timing;
mod vocabulary;
