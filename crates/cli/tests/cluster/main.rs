//! A cluster as processes: `forebay worker`s and `forebay frontend`s that find each other, and what
//! clients see when parts of it stall, break or end.
//!
//! Every answer is checked token by token ([`answer`]), so that one that was lost, repeated or
//! altered on the way shows. No test asks how long something took.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod answer;
mod busy;
mod cluster;
mod connections;
mod ends;
mod example;
mod load;
mod lost_events;
mod native;
mod nats;
mod operator;
mod outages;
mod rollout;
mod start;
mod versions;
mod wait;
