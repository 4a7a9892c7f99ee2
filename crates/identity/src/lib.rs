//! Who a caller is, and what must stay secret: password hashes, tokens, the keys of both, and secrets at
//! rest.
//!
//! Invariants: no secret shows in `Debug`, in an error or in a log; a log-in costs the same work whether the
//! person exists or not; a laboratory's token is never an operator's; what is sealed for one tenant opens for
//! no other.
//!
//! This crate decides who a caller is and never what they may do; it talks to no database and knows no HTTP.

mod invitations;
mod keys;
#[cfg(feature = "passwords")]
mod passwords;
#[cfg(feature = "passwords")]
mod permits;
#[cfg(feature = "passwords")]
mod rules;
mod seal;
mod secrets;
#[cfg(feature = "tokens")]
mod token_cache;
#[cfg(feature = "tokens")]
mod tokens;

pub use invitations::{
    generate_invitation_token, generate_staff_invitation_token, invitation_digest, invitation_tenant,
};
pub use keys::{KeyError, KeyStore, SealKey, SigningKey};
#[cfg(feature = "passwords")]
pub use passwords::{PasswordError, PasswordOptions, Passwords};
#[cfg(feature = "passwords")]
pub use permits::{Lane, Requester};
#[cfg(feature = "passwords")]
pub use rules::{ChosenPassword, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, PasswordContext, WeakPassword};
pub use seal::{SealContext, SealError, Sealer};
pub use secrets::{generate_password, scram_verifier};
#[cfg(feature = "tokens")]
pub use tokens::{Principal, TokenError, Tokens};
