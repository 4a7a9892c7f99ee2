//! All there is to know of one laboratory.

use registry::{Admin, BackupSchedule, Operation, OperationFilter, Tenant, TenantEventRow};
use serde_json::json;

use super::{backup, list::version, operations};
use crate::{
    context::Context,
    find::{TenantRef, tenant},
    output::{moment, moment_or_dash, pairs, span, table},
    view::{AdminView, EventView, OperationView, TenantView},
};

const EVENTS_MAX: u32 = 20;
const OPERATIONS_MAX: u32 = 10;

pub(crate) async fn run(context: &Context, wanted: &TenantRef) -> anyhow::Result<()> {
    let client = context.client().await?;
    let tenant = tenant(&client, wanted).await?;
    let server = registry::server_by_name(&client, &tenant.server).await?;
    let address = server.map_or_else(
        || "not registered".to_owned(),
        |s| format!("{}:{}", s.host, s.port),
    );
    let admins = registry::admins_of(&client, tenant.id).await?;
    let schedule = registry::backup_schedule_of(&client, tenant.id).await?;
    let events = registry::events_of(&client, tenant.id, None, EVENTS_MAX).await?;
    let filter = OperationFilter {
        tenant: Some(tenant.id),
        ..OperationFilter::default()
    };
    let operations = registry::operations_list(&client, &filter, None, OPERATIONS_MAX).await?;
    if context.out.json {
        return context.out.document(&json!({
            "tenant": TenantView::from(&tenant),
            "serverAddress": address,
            "backupSchedule": schedule.as_ref().map(backup::view),
            "admins": admins.iter().map(AdminView::from).collect::<Vec<_>>(),
            "events": events.iter().map(EventView::from).collect::<Vec<_>>(),
            "operations": operations.iter().map(OperationView::from).collect::<Vec<_>>(),
        }));
    }
    context.out.answer(&text(
        &tenant,
        &address,
        schedule.as_ref(),
        &admins,
        &events,
        &operations,
    ))
}

fn text(
    tenant: &Tenant,
    address: &str,
    schedule: Option<&BackupSchedule>,
    admins: &[Admin],
    events: &[TenantEventRow],
    operations: &[Operation],
) -> String {
    let head = pairs([
        ("slug", tenant.slug.to_string()),
        ("name", tenant.name.clone()),
        ("id", tenant.id.to_string()),
        ("status", tenant.status.to_string()),
        ("time zone", tenant.time_zone.clone()),
        ("schema", version(tenant.db_version)),
        ("server", format!("{} ({address})", tenant.server)),
        ("database", tenant.db_name.as_str().to_owned()),
        ("created", moment(tenant.created_at)),
        ("in service since", moment_or_dash(tenant.activated_at)),
        (
            "backups",
            schedule.map_or_else(
                || "no schedule".to_owned(),
                |schedule| format!("every {}; {}", span(schedule.every), backup::went(schedule)),
            ),
        ),
        (
            "changed",
            format!("{} (generation {})", moment(tenant.updated_at), tenant.generation),
        ),
    ]);
    let admins = admins.iter().map(|admin| {
        let state = if admin.disabled_at.is_some() {
            "disabled"
        } else if admin.password_hash.is_none() {
            "no password yet"
        } else {
            ""
        };
        vec![
            admin.email.to_string(),
            admin.display_name.clone(),
            state.to_owned(),
        ]
    });
    let events = events
        .iter()
        .map(|event| vec![moment(event.at), event.kind.clone(), event.actor.to_string()]);
    format!(
        "{head}\n\nADMINISTRATORS\n{}\n\nEVENTS, newest first\n{}\n\nOPERATIONS, newest first\n{}",
        table(&["E-MAIL", "NAME", ""], admins),
        table(&["AT", "WHAT", "BY"], events),
        operations::listing(operations),
    )
}
