//! Schedulers over a fake model.
#![allow(clippy::unwrap_used)]

mod fake_runner;
mod properties;
mod rules;
