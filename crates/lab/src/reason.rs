//! The body of requests that need nothing but a reason.

use crate::schema;

/// Why something is done.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reason {
    /// In a person's words.
    #[schema(value_type = schema::RequiredReason)]
    pub reason: String,
}
