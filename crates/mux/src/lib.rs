#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod events;
pub mod session;
pub mod view;
