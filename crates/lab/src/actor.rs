use model::Role;

/// Who acts, for signatures and for the audit trail.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The person, as known to this laboratory's staff list.
    pub staff: model::StaffId,
    /// The role they act in.
    pub role: Role,
    /// The request's id, to find it in the logs.
    pub request_id: Option<String>,
    /// Where the request came from.
    pub client_ip: Option<std::net::IpAddr>,
}
