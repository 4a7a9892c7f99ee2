//! Durable changes, as the registry remembers them.

use model::{OperationId, OperationStatus};
use registry::{Operation, OperationFilter, RegistryClient, StepRow};
use serde_json::json;

use crate::{
    cli::Operations,
    context::Context,
    find::tenant_id,
    foreground,
    outcome::Refusal,
    output::{moment, moment_or_dash, pairs, table},
    view::{OperationView, StepView},
};

pub(crate) async fn run(context: &Context, what: Operations) -> anyhow::Result<()> {
    match what {
        Operations::List {
            tenant,
            status,
            live,
            limit,
        } => {
            let client = context.client().await?;
            let tenant = match &tenant {
                Some(wanted) => Some(tenant_id(&client, wanted).await?),
                None => None,
            };
            let filter = OperationFilter {
                tenant,
                status,
                live,
                ..OperationFilter::default()
            };
            list(
                context,
                &registry::operations_list(&client, &filter, None, limit).await?,
            )
        }
        Operations::Show { operation } => {
            let operation = operation.id(&context.client().await?).await?;
            show(context, operation).await
        }
        Operations::Watch { operation } => {
            let client = context.client().await?;
            let found = find(&client, operation.id(&client).await?).await?;
            drop(client);
            follow(context, &found).await
        }
        Operations::Cancel {
            operation,
            reason,
            no_wait,
        } => {
            let operation = operation.id(&context.client().await?).await?;
            let by = context.requested_by(reason);
            let asked = context.platform.provisioner.cancel(operation, by).await?;
            if no_wait {
                return show(context, operation).await;
            }
            let label = format!("{} {}", asked.kind, asked.tenant_slug);
            match foreground::run(context, operation, &label).await {
                // As it should end.
                Err(error) if foreground::was_cancelled(&error) => {}
                outcome => drop(outcome?),
            }
            show(context, operation).await
        }
        Operations::Retry { operation, no_wait } => {
            let client = context.client().await?;
            let operation = operation.id(&client).await?;
            let found = find(&client, operation).await?;
            drop(client);
            context
                .platform
                .provisioner
                .reopen(operation, context.requested_by(None))
                .await?;
            if no_wait {
                show(context, operation).await
            } else {
                follow(context, &found).await
            }
        }
    }
}

async fn follow(context: &Context, operation: &Operation) -> anyhow::Result<()> {
    let label = format!("{} {}", operation.kind, operation.tenant_slug);
    foreground::run(context, operation.id, &label).await?;
    show(context, operation.id).await
}

async fn find(client: &RegistryClient, id: OperationId) -> anyhow::Result<Operation> {
    registry::operation_by_id(client, id).await?.ok_or_else(|| {
        Refusal::NotFound(format!(
            "there is no operation {id}; `tenantctl operations list` shows the latest"
        ))
        .into()
    })
}

fn list(context: &Context, operations: &[Operation]) -> anyhow::Result<()> {
    if context.out.json {
        let views: Vec<OperationView> = operations.iter().map(OperationView::from).collect();
        return context.out.document(&json!({"operations": views}));
    }
    context.out.answer(&listing(operations))
}

/// Operations as a table.
pub(crate) fn listing(operations: &[Operation]) -> String {
    let rows = operations.iter().map(|operation| {
        vec![
            operation.id.to_string(),
            operation.kind.to_string(),
            operation.tenant_slug.to_string(),
            status(operation),
            operation.attempts.to_string(),
            moment(operation.created_at),
            operation.created_by.to_string(),
        ]
    });
    table(&["ID", "KIND", "SLUG", "STATUS", "TRIES", "ASKED", "BY"], rows)
}

/// The status for people: one that waits for a time is named by that time, which `pending` does not say.
fn status(operation: &Operation) -> String {
    match operation.waiting_until {
        Some(until) if operation.is_waiting() => format!("waiting until {}", moment(until)),
        _ => operation.status.to_string(),
    }
}

async fn show(context: &Context, id: OperationId) -> anyhow::Result<()> {
    let client = context.client().await?;
    let operation = find(&client, id).await?;
    let steps = registry::steps_of(&client, id).await?;
    if context.out.json {
        return context.out.document(&json!({
            "operation": OperationView::from(&operation),
            "steps": steps.iter().map(StepView::from).collect::<Vec<_>>(),
        }));
    }
    context.out.answer(&text(&operation, &steps))?;
    match operation.status {
        OperationStatus::Failed => context
            .out
            .note(&format!("`tenantctl operations retry {id}` tries again")),
        OperationStatus::Pending if operation.is_waiting() => context
            .out
            .note(&format!("`tenantctl operations cancel {id}` cancels it")),
        OperationStatus::Pending => context
            .out
            .note(&format!("`tenantctl operations watch {id}` runs it here")),
        OperationStatus::Running
        | OperationStatus::Undoing
        | OperationStatus::Succeeded
        | OperationStatus::Cancelled => {}
    }
    Ok(())
}

fn text(operation: &Operation, steps: &[StepRow]) -> String {
    let head = pairs([
        ("id", operation.id.to_string()),
        ("kind", operation.kind.to_string()),
        (
            "laboratory",
            format!("{} ({})", operation.tenant_slug, operation.tenant),
        ),
        ("status", status(operation)),
        ("tries", operation.attempts.to_string()),
        ("asked for by", operation.created_by.to_string()),
        ("asked", moment(operation.created_at)),
        ("begun", moment_or_dash(operation.started_at)),
        ("waits until", moment_or_dash(operation.waiting_until)),
        ("ended", moment_or_dash(operation.finished_at)),
        (
            "worker",
            operation.lease_owner.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("error", operation.error_text().unwrap_or_else(|| "-".to_owned())),
    ]);
    let rows = steps.iter().map(|row| {
        vec![
            row.step.to_string(),
            row.status.to_string(),
            row.attempts.to_string(),
            moment(row.began_at),
            moment_or_dash(row.ended_at),
            row.error.clone().unwrap_or_default(),
        ]
    });
    format!(
        "{head}\n\nSTEPS\n{}",
        table(&["STEP", "STATUS", "TRIES", "BEGAN", "ENDED", "ERROR"], rows)
    )
}
