//! Every kind of refusal, with its status and its page: one table, read by the responses, by `GET
//! /problems/{code}` and by the OpenAPI document.

use actix_web::http::StatusCode;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $status:ident, $title:literal, $help:literal;)+) => {
        /// What went wrong, as a client can tell it apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $help] $kind),+
        }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The short word for programs; also the last part of the type's address.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$kind => $code),+ }
            }

            /// The HTTP status it is sent with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status),+ }
            }

            /// One line for people; the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),+ }
            }

            /// What it means and what to do about it.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$kind => $help),+ }
            }
        }
    };
}

kinds! {
    BadQuery = "bad-query", BAD_REQUEST, "The query string cannot be read",
        "A parameter is unknown or has a value of the wrong shape. The detail names it.";
    BadHeader = "bad-header", BAD_REQUEST, "A header cannot be read",
        "A request header has a value of the wrong shape. The detail names it.";
    BodyEmpty = "body-empty", BAD_REQUEST, "The body is empty",
        "This call needs a body. The OpenAPI document shows its shape.";
    MalformedJson = "malformed-json", BAD_REQUEST, "The body is not JSON",
        "The detail gives the line and column at which reading stopped.";
    BodyUnreadable = "body-unreadable", BAD_REQUEST, "The body could not be read to its end",
        "The connection broke off, or the body is not encoded as its headers say. Send it again.";
    TokenMissing = "token-missing", UNAUTHORIZED, "No token was sent",
        "Log in at /api/v1/auth/login and send `Authorization: Bearer <accessToken>`.";
    TokenInvalid = "token-invalid", UNAUTHORIZED, "The token is not valid here",
        "It was not issued by this service, was changed or was ended: by a log-out, a new password, another role, a deactivation or a restore of the laboratory. Log in again.";
    TokenExpired = "token-expired", UNAUTHORIZED, "The token has expired",
        "Tokens live for a short time. Log in again.";
    LoginFailed = "login-failed", UNAUTHORIZED, "The log-in was refused",
        "The e-mail address or the password is wrong, or the person is not active. Name the laboratory in `tenant`, always if you work in several.";
    WrongPassword = "wrong-password", FORBIDDEN, "The current password is wrong",
        "A new password is taken only together with the one that you log in with now. Who has lost it asks for an invitation.";
    InvitationInvalid = "invitation-invalid", UNAUTHORIZED, "The invitation is not valid",
        "It was used, has expired, was replaced by a newer one, or is not copied whole. Ask the person who invited you for a new one; with a password that you have set already, log in.";
    Forbidden = "forbidden", FORBIDDEN, "Your role may not do this",
        "The role in your token has no right to this action. Ask the laboratory's admin.";
    WrongAudience = "wrong-audience", FORBIDDEN, "The token is for another part of the service",
        "Operators' calls need an operator's token, a laboratory's calls need a token of its staff.";
    TenantSuspended = "tenant-suspended", FORBIDDEN, "The laboratory is suspended",
        "Its data is kept, and it cannot be used until an operator resumes it.";
    TenantDeleting = "tenant-deleting", FORBIDDEN, "The laboratory is being removed",
        "It is being archived and will be dropped; it cannot be used any more. Ask the operators about its archive.";
    TenantRestoring = "tenant-restoring", SERVICE_UNAVAILABLE, "The laboratory is being restored",
        "An archive is taking the place of what it holds; try again in a few minutes.";
    NoSuchRoute = "no-such-route", NOT_FOUND, "There is nothing at this address",
        "The OpenAPI document at /openapi.json lists every address.";
    NotFound = "not-found", NOT_FOUND, "No such record",
        "This laboratory has no record with that id. Ids of other laboratories do not exist here.";
    UnknownTenant = "unknown-tenant", NOT_FOUND, "No such laboratory",
        "The registry has no laboratory with that id, or it is not yours.";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "This address does not take that method",
        "The Allow header lists the methods it takes.";
    Conflict = "conflict", CONFLICT, "The record's state does not allow this",
        "The detail says which state it is in and what it needs. Read the record again, then decide.";
    Duplicate = "duplicate", CONFLICT, "It exists already",
        "A record with the same key exists. The detail names the key.";
    ItemsRefused = "items-refused", CONFLICT, "Some of the items cannot be taken, so none was",
        "`errors` lists each refused item with its reason. Mend or leave out those and send the rest again.";
    SlugTaken = "slug-taken", CONFLICT, "The short name is taken",
        "Another laboratory has that slug. Choose another one.";
    IllegalTransition = "illegal-transition", CONFLICT, "The laboratory's state does not allow this",
        "The detail names the state and what was asked of it.";
    PreconditionUnmet = "precondition-unmet", CONFLICT, "Something that the operation needs is missing",
        "The detail lists what, and what to do about each. Nothing was changed; ask again once it is there.";
    OperationInProgress = "operation-in-progress", CONFLICT, "Another operation is running on this laboratory",
        "Only one operation runs on a laboratory at a time. Wait for it to end and try again.";
    ExportInProgress = "export-in-progress", CONFLICT, "The laboratory's data are being exported already",
        "Each tenantd runs one export of a laboratory at a time. Let it end, or break its download off, and ask again after Retry-After.";
    IdempotencyInFlight = "idempotency-in-flight", CONFLICT, "The first request with this key is still running",
        "Wait a moment and send the same request again: you will get the first one's answer.";
    VersionMismatch = "version-mismatch", PRECONDITION_FAILED, "The record has changed since you read it",
        "If-Match names another version than the record has now. Read it again, then decide.";
    BodyTooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body did not come in time",
        "The connection is too slow, or stopped in the middle of the body. Nothing was changed; send it again.";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The detail gives the limit in bytes. Split the work into several requests.";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body's content type is not taken here",
        "The detail names the content types this call takes.";
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "The request cannot be carried out as it stands",
        "A value is missing, out of range or names something that does not exist. The detail and `errors` say which.";
    UnknownField = "unknown-field", UNPROCESSABLE_ENTITY, "The body has a field that this call does not know",
        "Unknown fields are refused, so that a misspelt one is not lost. The detail names it and the known ones.";
    InvalidSlug = "invalid-slug", UNPROCESSABLE_ENTITY, "The short name has not the right shape",
        "A slug has 2 to 40 lower-case letters, digits and single hyphens, and begins with a letter.";
    WeakPassword = "weak-password", UNPROCESSABLE_ENTITY, "The password is too weak",
        "Use 12 to 128 characters: several unrelated words, no common password, and nothing made of your address or of the laboratory's name. The detail says which.";
    IdempotencyKeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The key was used for another request",
        "An Idempotency-Key belongs to one request. Use a new key for a new request.";
    PreconditionRequired = "precondition-required", PRECONDITION_REQUIRED, "If-Match is missing",
        "Send the ETag that you read as If-Match, so that no change is overwritten unseen.";
    TooManyAtOnce = "too-many-at-once", TOO_MANY_REQUESTS, "Too many log-ins of yours are under way",
        "Log-ins of one client wait for each other. Try again after Retry-After.";
    TooManyAttempts = "too-many-attempts", TOO_MANY_REQUESTS, "Too many failed attempts",
        "Wait as long as Retry-After says, then try again.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something broke on our side",
        "It has been logged under the trace id. Nothing half-done was kept; try again, and name the trace id if it stays.";
    TenantProvisioning = "tenant-provisioning", SERVICE_UNAVAILABLE, "The laboratory is still being made",
        "Wait as long as Retry-After says, then try again.";
    VersionBehind = "version-behind", SERVICE_UNAVAILABLE, "The laboratory's database must be migrated first",
        "Its schema is older than this service needs. Operators: `tenantctl migrate --all`.";
    VersionAhead = "version-ahead", SERVICE_UNAVAILABLE, "The laboratory's database is newer than this service",
        "A newer service has migrated it. Operators: update this `tenantd`.";
    RegistryUnavailable = "registry-unavailable", SERVICE_UNAVAILABLE, "The registry cannot be reached",
        "The master database does not answer. Nothing was changed; try again after Retry-After.";
    TenantServerUnavailable = "tenant-server-unavailable", SERVICE_UNAVAILABLE, "The laboratory's database server cannot be reached",
        "The server that hosts the laboratory's database does not answer. Try again after Retry-After.";
    TenantLoginRefused = "tenant-login-refused", SERVICE_UNAVAILABLE, "The laboratory's database does not let this service in",
        "The database server answers and refuses the log-in: the laboratory is being closed or changed just now, or its role was changed on the server. Try again after Retry-After. Operators, if it stays: `tenantctl doctor --deep` names the cause and what to do about it.";
    DatabaseReadOnly = "database-read-only", SERVICE_UNAVAILABLE, "The database takes no writes at the moment",
        "Nothing was changed, and reading goes on. The server is a standby, or is kept from writing while its disk is full. Try again after Retry-After. Operators: `tenantctl doctor` names the server.";
    PoolTimeout = "pool-timeout", SERVICE_UNAVAILABLE, "All connections of the laboratory are busy",
        "No connection came free in time. Try again after Retry-After.";
    ServerBusy = "server-busy", SERVICE_UNAVAILABLE, "All connections to the laboratory's database server are busy",
        "None came free in time. Try again after Retry-After.";
    Busy = "busy", SERVICE_UNAVAILABLE, "The service is busy",
        "Too much of this kind of work is waiting. Try again after Retry-After.";
    DeadlinePassed = "deadline-passed", SERVICE_UNAVAILABLE, "The request took too long",
        "It was given up at its time limit and rolled back unless it had just been committed. Send it again with the same Idempotency-Key.";
}

impl Kind {
    /// The address of the kind's page, relative to the service's root: the problem's `type`.
    #[must_use]
    pub fn address(self) -> String {
        format!("/problems/{}", self.code())
    }

    /// The kind with this code.
    #[must_use]
    pub fn by_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_shaped_like_slugs() {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            let code = kind.code();
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{code}"
            );
            assert_eq!(
                Kind::ALL.iter().position(|k| k.code() == code),
                Some(at),
                "{code} twice"
            );
            assert_eq!(Kind::by_code(code), Some(*kind));
        }
    }
}
