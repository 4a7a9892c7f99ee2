//! Tokens: signed statements of who a caller is, for a short time (JWT, RFC 7519, HS256).
//!
//! The library checks the shape, the algorithm and the signature. Times are checked here against the injected
//! clock, and so is the audience, which decides what kind of principal a token can ever become.
//!
//! A token also carries the epochs of the sessions that it was issued under. Whether they still are the
//! person's and the laboratory's is for the caller to compare, at every request: nothing here reads a
//! database.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
};
use model::{Clock, OperatorId, Role, SessionEpoch, StaffId, TenantId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    SigningKey,
    token_cache::{Statement, TokenCache, fingerprint},
};

const ISSUER: &str = "tenantry";
const AUDIENCE_LAB: &str = "lab";
const AUDIENCE_OPERATOR: &str = "operator";
/// How far the clock of the machine that issued a token may be ahead of this one's.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
/// Longer texts are not looked at; ours have some 400 bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// Who a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// A person of one laboratory.
    Staff {
        /// The person.
        staff: StaffId,
        /// The laboratory.
        tenant: TenantId,
        /// What the person does there.
        role: Role,
        /// The person's epoch when the token was issued.
        epoch: SessionEpoch,
        /// The laboratory's.
        tenant_epoch: SessionEpoch,
    },
    /// A person of the platform's staff.
    Operator {
        /// The person.
        operator: OperatorId,
        /// The person's epoch when the token was issued.
        epoch: SessionEpoch,
    },
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token of the kind that is issued here.
    #[error("the token cannot be read")]
    Malformed,
    /// It was not signed with the key of this platform, or was changed.
    #[error("the token's signature does not fit")]
    BadSignature,
    /// Another issuer made it.
    #[error("the token was issued elsewhere")]
    WrongIssuer,
    /// It is meant for something else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// Its time is over.
    #[error("the token has expired; log in again")]
    Expired,
    /// Its time has not come: the clocks of two machines disagree.
    #[error("the token is not valid yet; check this machine's clock")]
    NotYetValid,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    epoch: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_epoch: Option<Uuid>,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
}

/// Issues and verifies tokens. Clones share the key and what was verified.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    header: Header,
    validation: Validation,
    ttl: SignedDuration,
    clock: Arc<dyn Clock>,
    cache: Arc<TokenCache>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("key_id", &self.header.kid)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens signed with `key` that live for `ttl`, in whole seconds and at least one.
    #[must_use]
    pub fn new(key: SigningKey, ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.id());
        let mut validation = Validation::new(Algorithm::HS256);
        // All of these are checked below: by our clock, and with the audience deciding the kind of principal.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self {
            encoding: EncodingKey::from_secret(key.bytes()),
            decoding: DecodingKey::from_secret(key.bytes()),
            header,
            validation,
            ttl: SignedDuration::from_secs(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1)),
            clock,
            cache: Arc::default(),
        }
    }

    /// A new token and when it expires.
    ///
    /// # Panics
    /// Never: HMAC takes any message, and the claims are plain JSON.
    #[must_use]
    pub fn issue(&self, principal: &Principal) -> (SecretString, Timestamp) {
        let now = self.clock.now().as_second();
        let exp = now
            .saturating_add(self.ttl.as_secs())
            .min(Timestamp::MAX.as_second());
        let (aud, sub, epoch) = match *principal {
            Principal::Staff { staff, epoch, .. } => (AUDIENCE_LAB, staff.as_uuid(), epoch),
            Principal::Operator { operator, epoch } => (AUDIENCE_OPERATOR, operator.as_uuid(), epoch),
        };
        let (tenant_id, role, tenant_epoch) = match *principal {
            Principal::Staff {
                tenant,
                role,
                tenant_epoch,
                ..
            } => (Some(tenant.as_uuid()), Some(role), Some(tenant_epoch.as_uuid())),
            Principal::Operator { .. } => (None, None, None),
        };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: aud.to_owned(),
            sub,
            tenant_id,
            role,
            epoch: epoch.as_uuid(),
            tenant_epoch,
            iat: now,
            nbf: now,
            exp,
            jti: Uuid::now_v7(),
        };
        let token = encode(&self.header, &claims, &self.encoding).expect("HMAC signs any claims");
        (
            token.into(),
            Timestamp::from_second(exp).unwrap_or(Timestamp::MAX),
        )
    }

    /// Who the token speaks for. One that was verified before is only looked up.
    ///
    /// # Errors
    /// [`TokenError`]; to the outside all of them are the same 401.
    pub fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (now, known_by) = (self.clock.now(), fingerprint(token));
        if let Some(spoken) = self.cache.look(&known_by, now) {
            return spoken;
        }
        let statement = self.read(token)?;
        let principal = statement.at(now)?;
        self.cache.keep(known_by, statement);
        Ok(principal)
    }

    /// What the token says, if it is one of ours.
    fn read(&self, token: &str) -> Result<Statement, TokenError> {
        let decoded = decode::<Claims>(token, &self.decoding, &self.validation);
        let claims = decoded.map_err(|error| unreadable(error.kind()))?.claims;
        if claims.iss != ISSUER {
            return Err(TokenError::WrongIssuer);
        }
        let seconds = |s| Timestamp::from_second(s).map_err(|_| TokenError::Malformed);
        let epoch = claims.epoch.into();
        let of_lab = (claims.tenant_id, claims.role, claims.tenant_epoch);
        let principal = match (claims.aud.as_str(), of_lab) {
            (AUDIENCE_LAB, (Some(tenant), Some(role), Some(tenant_epoch))) => Principal::Staff {
                staff: claims.sub.into(),
                tenant: tenant.into(),
                role,
                epoch,
                tenant_epoch: tenant_epoch.into(),
            },
            (AUDIENCE_OPERATOR, (None, None, None)) => Principal::Operator {
                operator: claims.sub.into(),
                epoch,
            },
            (AUDIENCE_LAB | AUDIENCE_OPERATOR, ..) => return Err(TokenError::Malformed),
            _ => return Err(TokenError::WrongAudience),
        };
        Ok(Statement {
            principal,
            not_before: seconds(claims.nbf)?,
            expires: seconds(claims.exp)?,
        })
    }
}

impl Statement {
    /// Who it speaks for at `now`.
    pub(crate) fn at(&self, now: Timestamp) -> Result<Principal, TokenError> {
        if self.expires <= now {
            return Err(TokenError::Expired);
        }
        if self.not_before.duration_since(now) > SKEW_MAX {
            return Err(TokenError::NotYetValid);
        }
        Ok(self.principal)
    }
}

fn unreadable(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::BadSignature,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use model::ManualClock;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;

    const TTL: Duration = Duration::from_secs(900);

    struct Bench {
        key: SigningKey,
        clock: Arc<ManualClock>,
        tokens: Tokens,
    }

    fn bench() -> Bench {
        let key = SigningKey::generate();
        let clock = Arc::new(ManualClock::new("2025-06-01T12:00:00.5Z".parse().unwrap()));
        let tokens = Tokens::new(key.clone(), TTL, Arc::<ManualClock>::clone(&clock));
        Bench { key, clock, tokens }
    }

    fn staff() -> Principal {
        Principal::Staff {
            staff: StaffId::generate(),
            tenant: TenantId::generate(),
            role: Role::Supervisor,
            epoch: SessionEpoch::generate(),
            tenant_epoch: SessionEpoch::generate(),
        }
    }

    fn operator() -> Principal {
        Principal::Operator {
            operator: OperatorId::generate(),
            epoch: SessionEpoch::generate(),
        }
    }

    /// The claims of a token that is valid now, changed, signed with the right key.
    fn signed(bench: &Bench, header: &Header, change: impl FnOnce(&mut Value)) -> String {
        let (token, _) = bench.tokens.issue(&staff());
        let payload = token.expose_secret().split('.').nth(1).unwrap();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        change(&mut claims);
        encode(header, &claims, &EncodingKey::from_secret(bench.key.bytes())).unwrap()
    }

    #[test]
    fn a_token_says_who_was_meant() {
        let bench = bench();
        for principal in [staff(), operator()] {
            let (token, expires_at) = bench.tokens.issue(&principal);
            assert_eq!(bench.tokens.verify(token.expose_secret()), Ok(principal));
            assert_eq!(expires_at, "2025-06-01T12:15:00Z".parse().unwrap());
        }
    }

    #[test]
    fn it_ends_at_its_second_and_not_later() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&staff());
        bench.clock.advance(SignedDuration::from_secs(899));
        assert!(bench.tokens.verify(token.expose_secret()).is_ok());
        bench.clock.advance(SignedDuration::from_millis(500));
        assert_eq!(
            bench.tokens.verify(token.expose_secret()),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn a_clock_that_is_a_little_behind_is_borne_with() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&staff());
        bench.clock.advance(SignedDuration::from_secs(-60));
        assert!(bench.tokens.verify(token.expose_secret()).is_ok());
        bench.clock.advance(SignedDuration::from_secs(-1));
        assert_eq!(
            bench.tokens.verify(token.expose_secret()),
            Err(TokenError::NotYetValid)
        );
    }

    #[test]
    fn only_what_was_verified_is_remembered_and_not_past_its_end() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&operator());
        assert!(
            bench
                .tokens
                .verify(&format!("{}x", token.expose_secret()))
                .is_err()
        );
        assert_eq!(bench.tokens.cache.len(), 0);
        let clone = bench.tokens.clone();
        for _ in 0..3 {
            assert!(clone.verify(token.expose_secret()).is_ok());
            assert_eq!(bench.tokens.cache.len(), 1);
        }
        bench.clock.advance(SignedDuration::from_secs(900));
        for _ in 0..2 {
            assert_eq!(clone.verify(token.expose_secret()), Err(TokenError::Expired));
            assert_eq!(bench.tokens.cache.len(), 0);
        }
    }

    #[test]
    fn another_key_does_not_fit() {
        let (ours, theirs) = (bench(), bench());
        let (token, _) = theirs.tokens.issue(&staff());
        assert_eq!(
            ours.tokens.verify(token.expose_secret()),
            Err(TokenError::BadSignature)
        );
    }

    #[test]
    fn no_changed_character_gets_through() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&operator());
        let token = token.expose_secret();
        for (at, old) in token.char_indices() {
            let new = if old == 'A' { 'B' } else { 'A' };
            let changed = format!("{}{new}{}", &token[..at], &token[at + 1..]);
            // The last character of a base64 text carries bits that mean nothing; strict decoding refuses
            // them too.
            assert!(bench.tokens.verify(&changed).is_err(), "{at}: {changed}");
        }
    }

    #[test]
    fn only_our_algorithm_counts() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&staff());
        let payload = token.expose_secret().split('.').nth(1).unwrap();
        for (header, signature) in [
            (r#"{"alg":"none","typ":"JWT"}"#, ""),
            (r#"{"alg":"None"}"#, "x"),
            (r#"{"typ":"JWT"}"#, ""),
            (r#"{"alg":"RS256"}"#, "AAAA"),
        ] {
            let forged = format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header));
            assert!(bench.tokens.verify(&forged).is_err(), "{header}");
        }
        let stronger = signed(&bench, &Header::new(Algorithm::HS512), |_| {});
        assert_eq!(bench.tokens.verify(&stronger), Err(TokenError::BadSignature));
    }

    #[test]
    fn audience_issuer_and_claims_must_fit_together() {
        let bench = bench();
        let header = Header::new(Algorithm::HS256);
        let verify = |change: fn(&mut Value)| bench.tokens.verify(&signed(&bench, &header, change));
        assert!(verify(|_| {}).is_ok());
        assert_eq!(
            verify(|c| c["aud"] = json!("billing")),
            Err(TokenError::WrongAudience)
        );
        assert_eq!(
            verify(|c| c["iss"] = json!("elsewhere")),
            Err(TokenError::WrongIssuer)
        );
        let malformed: [fn(&mut Value); 10] = [
            // A laboratory's claims never become an operator's, and the other way round.
            |c| c["aud"] = json!("operator"),
            |c| c["tenant_id"] = Value::Null,
            // As issued before tokens carried epochs.
            |c| drop(c.as_object_mut().unwrap().remove("epoch")),
            |c| c["tenant_epoch"] = Value::Null,
            |c| c["role"] = json!("god"),
            |c| c["aud"] = json!(["lab", "operator"]),
            |c| c["sub"] = json!("ada"),
            |c| c["exp"] = Value::Null,
            |c| c["exp"] = json!(i64::MAX),
            |c| c["nbf"] = json!("now"),
        ];
        for (case, change) in malformed.into_iter().enumerate() {
            assert_eq!(verify(change), Err(TokenError::Malformed), "case {case}");
        }
    }

    #[test]
    fn noise_is_refused_without_a_panic() {
        let bench = bench();
        for noise in ["", ".", "..", "...", "a.b.c", "ä.ö.ü", &"x".repeat(10_000)] {
            assert_eq!(
                bench.tokens.verify(noise),
                Err(TokenError::Malformed),
                "{noise:.20}"
            );
        }
    }

    #[test]
    fn debug_shows_no_key_and_no_token() {
        let bench = bench();
        let (token, _) = bench.tokens.issue(&staff());
        let shown = format!("{:?} {token:?}", bench.tokens);
        assert!(!shown.contains(token.expose_secret()), "{shown}");
        assert!(shown.contains(&bench.key.id()), "{shown}");
        assert!(!shown.contains(&hex::encode(bench.key.bytes())), "{shown}");
    }
}
