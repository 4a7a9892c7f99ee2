//! The arbiter from outside, with pools and a server that are simulated step by step: stories, and properties
//! of any order of events. What threads can do to it is tried in `tests/interleavings.rs`.
#![cfg(not(feature = "shuttle"))]

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod stories;
