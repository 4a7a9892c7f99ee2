//! Tests the arbiter from outside, with pools and a server that are simulated step by step: stories, and
//! properties of any order of events. `tests/interleavings.rs` tests it with threads.
#![cfg(not(feature = "shuttle"))]

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod stories;
