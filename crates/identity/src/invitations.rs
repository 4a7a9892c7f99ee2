//! Tokens of invitations: what a person gets once, to set a password with.

use model::TenantId;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::generate_password;

/// A new token: 256 random bits as 43 characters that need no escaping anywhere.
#[must_use]
pub fn generate_invitation_token() -> SecretString {
    generate_password()
}

/// A new token for a person whom only their laboratory knows: it names the laboratory, so that it can be
/// looked up there.
#[must_use]
pub fn generate_staff_invitation_token(tenant: TenantId) -> SecretString {
    let random = generate_password();
    format!("{}.{}", tenant.as_uuid().simple(), random.expose_secret()).into()
}

/// The laboratory that a token names; `None` for one that the registry knows, or that is none.
#[must_use]
pub fn invitation_tenant(token: &SecretString) -> Option<TenantId> {
    token.expose_secret().split_once('.')?.0.parse().ok()
}

/// What is stored of a token. A plain hash is enough: no attacker finds 256 random bits by trying.
#[must_use]
pub fn invitation_digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let (token, other) = (generate_invitation_token(), generate_invitation_token());
        assert_eq!(token.expose_secret().len(), 43);
        assert_eq!(invitation_digest(&token), invitation_digest(&token.clone()));
        assert_ne!(invitation_digest(&token), invitation_digest(&other));
        assert_eq!(invitation_tenant(&token), None);
        let tenant = TenantId::generate();
        let token = generate_staff_invitation_token(tenant);
        assert_eq!(token.expose_secret().len(), 76);
        assert_eq!(invitation_tenant(&token), Some(tenant));
        assert_eq!(invitation_tenant(&".".into()), None);
    }
}
