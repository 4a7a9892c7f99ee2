/// The figures of one server's arbiter at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArbiterStats {
    /// The most slots.
    pub budget: usize,
    /// Slots that are out: connects under way, open connections, and closing connections.
    pub taken: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Connections that are closing: their backends are not known to be gone.
    pub closing: usize,
    /// Connections that an earlier process of this instance still has on the server.
    pub predecessors: usize,
    /// Tenants in the wait queue.
    pub tenants_waiting: usize,
    /// Whether the breaker is open.
    pub breaker_open: bool,
    /// Idle connections that the arbiter took for another tenant.
    pub taken_idle_total: u64,
    /// Connections that were closed because their tenure was over and another tenant waited.
    pub yields_total: u64,
    /// Callers that the arbiter refused at once because the breaker was open.
    pub refused_total: u64,
}
