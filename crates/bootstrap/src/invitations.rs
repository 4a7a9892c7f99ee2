use secrecy::{ExposeSecret, SecretString};

/// Where a token of an invitation is taken, below the address of `tenantd`. The token follows the `#`:
/// browsers send that part to no server, so it is in nobody's log.
#[must_use]
pub fn invitation_path(token: &SecretString) -> String {
    format!("/invitation#{}", token.expose_secret())
}

/// The whole link, where it is known what people reach `tenantd` by.
#[must_use]
pub fn invitation_link(public_url: Option<&str>, token: &SecretString) -> Option<String> {
    public_url.map(|url| format!("{url}{}", invitation_path(token)))
}
