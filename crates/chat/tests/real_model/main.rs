//! Tests with the tokenizer and template of the real model that Forebay serves by default.

#![allow(clippy::unwrap_used)]

mod captures;
mod exact;
mod oracle;
mod support;
mod vocabulary;
