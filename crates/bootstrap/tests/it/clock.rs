//! A machine whose clock is 40 days ahead: what it signs is taken elsewhere, and what others signed is taken
//! by it.

use std::{sync::Arc, time::Duration};

use bootstrap::Platform;
use identity::{Principal, Tokens};
use jiff::SignedDuration;
use model::{Clock, ManualClock, OperatorId, SessionEpoch, SystemClock};
use secrecy::ExposeSecret as _;
use testkit::Space;

use crate::prepare::settings;

const LIMIT: Duration = Duration::from_secs(5);

fn tokens(platform: &Platform) -> Tokens {
    let clock = Arc::new(platform.clock.clone());
    Tokens::new(platform.keys.signing_key(), Duration::from_secs(600), clock)
}

#[tokio::test]
async fn a_machine_whose_clock_is_ahead_and_one_whose_clock_is_right_take_each_others_tokens() {
    let space = Space::new().await;
    let settings = settings(&space, "state");
    let right = Platform::open(&settings).await.unwrap();
    right.prepare(|_| ()).await.unwrap();
    right.ready().await.unwrap();
    let by = SignedDuration::from_hours(40 * 24);
    let local = Arc::new(ManualClock::new(SystemClock.now() + by));
    let ahead = Platform::open_at(&settings, local).await.unwrap();
    ahead.ready().await.unwrap();

    let offset = ahead.clock.offset().unwrap();
    assert!((offset - by).abs() < SignedDuration::from_mins(1), "{offset}");
    assert!(right.clock.offset().unwrap().abs() < SignedDuration::from_mins(1));
    let apart = ahead.clock.now().duration_since(right.clock.now());
    assert!(apart.abs() < SignedDuration::from_secs(5), "{apart}");
    // What goes by a clock goes by this one: tokens, the times in webhooks' signatures, the doctor's notes.
    assert!(ahead.provisioner.config().clock.offset().is_some());
    let principal = Principal::Operator {
        operator: OperatorId::generate(),
        epoch: SessionEpoch::generate(),
    };
    for (signs, reads) in [(&ahead, &right), (&right, &ahead)] {
        let (token, _) = tokens(signs).issue(&principal);
        // Seconds are compared, and the two clocks may be some milliseconds apart when one begins.
        let reads = tokens(reads);
        testkit::eventually("the token to be taken", LIMIT, async || {
            reads.verify(token.expose_secret()).is_ok()
        })
        .await;
    }
    ahead.close().await.unwrap();
    right.close().await.unwrap();
}
