//! What a handler may take from a request, each parsed and refused at the edge.

mod body;
mod caller;
mod headers;
mod path;
mod tenant;

pub use body::{Body, MaybeBody, PublicBody, RawBody};
pub(crate) use caller::request_id;
pub use caller::{Caller, OperatorCaller, client_ip};
pub use headers::{IdempotencyKey, IfMatch, if_none_match};
pub use path::{Params, PathId, PathText};
pub use tenant::Tenant;
pub(crate) use tenant::TransactionError;
