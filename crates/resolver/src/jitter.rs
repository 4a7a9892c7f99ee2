use std::hash::{BuildHasher, RandomState};

/// A random number from 0 to 1,000, from the randomness with which the standard library keys its hash maps.
pub(crate) fn jitter() -> u32 {
    u32::try_from(RandomState::new().hash_one(0_u8) % 1_001).unwrap_or_default()
}
