//! What a receiver does with a delivery before it believes a word of it.
//!
//! `standardwebhooks` compares the signature in constant time and refuses timestamps more than five minutes
//! away from now. What is left to the receiver: to remember the ids of that time, since a copy of a delivery
//! is signed as well as the first.

use std::collections::HashSet;

use reqwest::header::HeaderMap;
use standardwebhooks::Webhook;

/// What came of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Ours, and new: its body is worth parsing.
    New,
    /// Ours, but it was here before. Answer 2xx, or it is sent again.
    Again,
    /// Not signed with our secret, or too old: answer 401 and forget it.
    Refused,
}

/// Judges a delivery. `seen` keeps `webhook-id`s for at least ten minutes; a real receiver keeps them in its
/// database, in the transaction that acts on the event.
pub(crate) fn receive(
    secret: &str,
    headers: &HeaderMap,
    body: &[u8],
    seen: &mut HashSet<String>,
) -> Received {
    let genuine = Webhook::new(secret).is_ok_and(|webhook| webhook.verify(body, headers).is_ok());
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
    match (genuine, id) {
        (true, Some(id)) if seen.insert(id.to_owned()) => Received::New,
        (true, Some(_)) => Received::Again,
        _ => Received::Refused,
    }
}

fn main() {
    let headers = HeaderMap::new();
    let judged = receive("whsec_AAAA", &headers, b"{}", &mut HashSet::new());
    println!("a delivery without a signature: {judged:?}");
}
