//! Real HTTP receivers, a real registry.
//!
//! `with-postgres -- cargo nextest run -p outbox`.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod addresses;
mod deliveries;
mod harness;
#[expect(dead_code, reason = "the example's own start is not ours")]
#[path = "../../examples/receive.rs"]
mod receive;
mod receiver;
mod retry_after;
mod sharing;
