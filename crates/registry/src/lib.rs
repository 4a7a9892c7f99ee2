//! Every SQL statement that the master database sees, and nothing else.
//!
//! Why a crate of its own: the registry is what the whole fleet believes. Statements are free functions, noun
//! first ([`tenant_by_slug`], [`operation_claim`]), that take a client or a transaction, so that a caller can
//! put a change and the operation it makes necessary into one transaction. The mapping of a row stands right
//! under its statement.
//!
//! Invariants: a status changes through [`model::TenantState::on`] only, and its event and audit row are
//! written in the same transaction, and so is the event for webhooks of it; what a worker writes about an
//! operation is written only while it holds the lease; a recorded `db_version` never falls; the audit is only
//! ever added to.
//!
//! The registry never connects to a laboratory's database, caches nothing and knows no HTTP.

mod actor;
mod admins;
mod archives;
mod audit;
mod clock;
mod deliveries;
mod error;
mod events;
mod ids;
mod invitations;
mod leases;
mod listener;
mod operations;
mod operators;
mod origins;
mod outbox;
mod paging;
mod pool;
mod position;
mod processes;
mod refusals;
mod routers;
mod row;
mod schedules;
#[cfg(feature = "migrations")]
mod schema;
mod servers;
mod sql;
mod steps;
mod tenants;
mod transition;
mod webhooks;

pub use actor::{Actor, Change};
pub use admins::{
    Admin, AdminPatch, NewAdmin, admin_by_id, admin_change_in_txn, admin_insert_in_txn, admin_lock_in_txn,
    admin_set_password_in_txn, admins_by_email, admins_of, admins_put_back_in_txn,
};
pub use archives::{
    Archive, NewArchive, archive_begin_pruning, archive_by_id, archive_by_operation, archive_insert,
    archive_lock_in_txn, archive_note_verified, archive_remove, archive_unrecord, archives_being_pruned,
    archives_list, archives_prunable,
};
pub use audit::{AuditEntry, AuditFilter, NewAudit, audit_insert, audit_list};
pub use clock::{RegistryClock, registry_now};
pub use deliveries::{
    Attempt, Claimed, Delivery, DeliveryFilter, DeliveryLease, Ended, Purged, attempts_of, deliveries_list,
    deliveries_purge, deliveries_queued, delivery_by_id, delivery_claim, delivery_end_in_txn,
    delivery_queue_again,
};
pub use error::{Entity, RegistryError};
pub use events::{NewTenantEvent, TenantEventRow, event_insert, events_of};
pub use ids::{IdKind, ids_by_prefix};
pub use invitations::{
    Invitation, NewInvitation, invitation_accept_in_txn, invitation_by_digest, invitation_put_in_txn,
    invitation_revoke_in_txn, invitations_of,
};
pub use leases::{
    Claimable, Lease, Outcome, operation_cancel_is_requested, operation_claim, operation_finish,
    operation_give_back, operation_hold_in_txn, operation_leave_to_others, operation_make_irreversible,
    operation_make_reversible, operation_note_drop, operation_progress, operation_release_for_retry,
    operation_renew, operation_set_undoing, operation_wait,
};
pub use listener::{Event, Listener, ListenerOptions, RowChange};
pub use operations::{
    NewOperation, Operation, OperationFilter, operation_by_id, operation_by_idempotency_key,
    operation_end_wait, operation_insert_in_txn, operation_reopen, operation_request_cancel_in_txn,
    operation_set_params, operation_tenant_by_slug, operation_wake, operations_list,
};
pub use operators::{
    NewOperator, Operator, operator_by_email, operator_by_id, operator_change_password_in_txn,
    operator_end_sessions_in_txn, operator_insert, operator_set_active_in_txn, operator_set_password_in_txn,
    operators_list,
};
pub use origins::tenants_with_people;
pub use outbox::{NewOutboxEvent, OutboxEvent, Recipients, outbox_insert, outbox_of_operation_end};
pub use paging::PAGE_MAX;
pub use pool::{Registry, RegistryClient, RegistryOptions, RegistryTransaction};
pub use position::{NotAPosition, Position};
pub use processes::{PROCESS_TTL, Process, ProcessReport, process_end, process_report, processes_list};
pub use refusals::{NewRefusal, Refusals, client_has_logged_in, refusal_count, refusals_list};
pub use routers::{
    Budgets, NewRouter, Overbooked, Router, TenantFence, fences_unacknowledged, router_acknowledge,
    router_budgets, router_register, router_renew, router_unregister, routers_list, routers_outstanding,
};
pub use schedules::{
    BackupSchedule, BackupTotals, NewBackupSchedule, backup_schedule_due, backup_schedule_note_end_in_txn,
    backup_schedule_of, backup_schedule_remove, backup_schedule_set_in_txn, backup_schedule_take_due_in_txn,
    backup_schedules_in_trouble, backup_schedules_list, backup_schedules_oldest, backup_totals,
};
#[cfg(feature = "migrations")]
pub use schema::{ensure_database, latest};
pub use servers::{NewServer, Server, server_by_name, server_upsert, servers_list};
pub use steps::{StepRow, step_begin, step_done, step_failed, steps_of};
pub use tenants::{
    NewTenant, Tenant, TenantFilter, laboratories_known, role_of_another_namespace, tenant_by_db_name,
    tenant_by_id, tenant_by_slug, tenant_insert_in_txn, tenant_lock_in_txn, tenant_set_db_version,
    tenant_set_role_secret, tenant_unchanged_for, tenants_list,
};
pub use transition::{tenant_delete_in_txn, tenant_transition_in_txn};
pub use webhooks::{
    NewWebhook, SwitchOff, Webhook, webhook_by_id, webhook_delete, webhook_failed_in_txn,
    webhook_hold_in_txn, webhook_insert, webhook_reached, webhook_set_enabled, webhook_set_secret,
    webhooks_list,
};
