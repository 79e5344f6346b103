//! The arithmetic of the engine, with one rule: **the bits of a result depend on its inputs only**.
//!
//! Not on the CPU, not on the number of threads, not on what else is in the batch, not on how a
//! prompt was cut into chunks, not on which blocks hold its keys and values. Everything above
//! this module may therefore compare logits bit for bit, and so can its users' tests.
//!
//! How the rule is kept:
//!
//! - A matrix product sums exact integers over 32 columns at a time, and adds those sums to an
//!   `f32` in ascending order. SIMD lanes are *output rows* ([`PackedMatrix`]), so no kernel ever
//!   has to add across lanes, and wider registers change nothing.
//! - Every other loop is written once over arrays of [`LANES`] lanes and compiled several times
//!   ([`vectorised`]). Multiplications and additions are never fused, and functions of the C
//!   library are not called: IEEE 754 then fixes each bit.
//! - Threads divide work ([`Pool`]) but never a sum.
//!
//! [`ARITHMETIC_VERSION`] names this arithmetic. It changes when any result does.

mod attention;
mod cpu;
mod elementwise;
mod matmul;
mod matrix;
mod pool;
#[cfg(test)]
mod pool_tests; // apart, because the model check compiles pool.rs without them
mod quantise;
mod rope;
mod shared;
mod sync;
mod zeroed;

pub(crate) use attention::{KvView, RowTile, TILE_ROWS, attention};
pub use cpu::Kernel;
use cpu::vectorised;
pub(crate) use elementwise::{exp, quantise, rms_norm, silu_product};
pub(crate) use matmul::{Output, matmul};
pub(crate) use matrix::PackedMatrix;
pub(crate) use pool::Pool;
pub(crate) use quantise::QuantisedRows;
pub(crate) use rope::{Rope, RopeAngles};
pub(crate) use zeroed::zeroed_floats;

/// Version of the arithmetic: part of every KV fingerprint, because KV bytes computed under two
/// versions are not interchangeable.
pub(crate) const ARITHMETIC_VERSION: u32 = 1;

/// Lanes of every `f32` loop, whatever the registers' width.
const LANES: usize = 16;

/// Columns that share one scale.
pub(crate) const BLOCK_COLUMNS: usize = 32;
