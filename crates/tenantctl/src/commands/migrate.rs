//! Laboratories brought to the code's schema version, several at a time.

use bootstrap::error_text;
use futures_util::{StreamExt as _, stream};
use model::{OperationId, OperationKind, SchemaVersion, TenantState};
use provisioner::ProvisionError;
use registry::{OperationFilter, RegistryError, Tenant, TenantFilter};
use serde_json::{Value, json};

use super::list;
use crate::{
    context::Context,
    find::{TenantRef, tenant},
    foreground,
    outcome::Refusal,
    output::table,
};

/// What became of one laboratory.
struct Outcome {
    tenant: Tenant,
    operation: Option<OperationId>,
    ended: anyhow::Result<SchemaVersion>,
}

impl Outcome {
    /// Whether its version changed. A named one that was current has its rights put in order and nothing
    /// else.
    fn was_migrated(&self) -> bool {
        self.ended.as_ref().is_ok_and(|to| *to != self.tenant.db_version)
    }
}

/// Those that are named; every one that is behind when none is.
pub(crate) async fn run(context: &Context, wanted: &[TenantRef]) -> anyhow::Result<()> {
    let all = wanted.is_empty();
    let (todo, current) = if all {
        behind(context).await?
    } else {
        (named(context, wanted).await?, 0)
    };
    let parallel_max = context.settings.worker.parallel_max;
    let mut outcomes: Vec<Outcome> = stream::iter(todo)
        .map(|tenant| one(context, tenant))
        .buffer_unordered(parallel_max)
        .collect()
        .await;
    outcomes.sort_by(|a, b| a.tenant.slug.cmp(&b.tenant.slug));
    // An interrupted run is told as such: what was under way can be taken up.
    if let Some(interrupted) = outcomes.iter_mut().find(|o| is_interrupted(&o.ended)) {
        return std::mem::replace(&mut interrupted.ended, Ok(SchemaVersion::default())).map(|_| ());
    }
    refresh_spares(context).await;
    tell(context, &outcomes, current)?;
    let failed = outcomes.iter().filter(|outcome| outcome.ended.is_err()).count();
    if failed > 0 {
        return Err(Refusal::Partly {
            failed,
            of: outcomes.len(),
        }
        .into());
    }
    Ok(())
}

fn is_interrupted(ended: &anyhow::Result<SchemaVersion>) -> bool {
    matches!(ended, Err(error) if matches!(error.downcast_ref(), Some(Refusal::Interrupted(_))))
}

async fn named(context: &Context, wanted: &[TenantRef]) -> anyhow::Result<Vec<Tenant>> {
    let client = context.client().await?;
    let mut tenants: Vec<Tenant> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let found = tenant(&client, one).await?;
        if !tenants.iter().any(|known| known.id == found.id) {
            tenants.push(found);
        }
    }
    Ok(tenants)
}

/// Laboratories with a schema, split into those that are not at this version and the number of those that
/// are. The registry knows: those that are current cost no connection.
async fn behind(context: &Context) -> anyhow::Result<(Vec<Tenant>, usize)> {
    let tenants = list::all(context, &TenantFilter::default()).await?;
    let with_schema = tenants
        .into_iter()
        .filter(|t| matches!(t.status, TenantState::Active | TenantState::Suspended));
    let (todo, current): (Vec<Tenant>, Vec<Tenant>) =
        with_schema.partition(|tenant| tenant.db_version != migrator::latest());
    Ok((todo, current.len()))
}

/// The databases that are kept ready belong to the fleet: those of the schema before are replaced.
async fn refresh_spares(context: &Context) {
    match context.platform.provisioner.stock().await {
        Ok(done) if done.made + done.dropped > 0 => context.out.note(&format!(
            "spares: {} made, {} of an earlier schema dropped",
            done.made, done.dropped
        )),
        Ok(_) => {}
        Err(error) => context.out.note(&format!("spares: not looked after: {error}")),
    }
}

async fn one(context: &Context, tenant: Tenant) -> Outcome {
    let operation = match operation_for(context, &tenant).await {
        Ok(operation) => operation,
        Err(error) => {
            context.out.note(&format!(
                "{}: not migrated: {}",
                tenant.slug,
                error_text(error.as_ref())
            ));
            return Outcome {
                tenant,
                operation: None,
                ended: Err(error),
            };
        }
    };
    let ended = match foreground::run(context, operation, tenant.slug.as_str()).await {
        Ok(_) => version_after(context, &tenant).await,
        Err(error) => Err(error),
    };
    Outcome {
        tenant,
        operation: Some(operation),
        ended,
    }
}

/// A new operation, or the migration that is under way already.
async fn operation_for(context: &Context, tenant: &Tenant) -> anyhow::Result<OperationId> {
    let asked = context
        .platform
        .provisioner
        .request_migrate(tenant.id, context.requested_by(None))
        .await;
    match asked {
        Ok(operation) => Ok(operation),
        Err(ProvisionError::Registry(error @ RegistryError::OperationInProgress { .. })) => {
            let filter = OperationFilter {
                tenant: Some(tenant.id),
                kind: Some(OperationKind::Migrate),
                live: true,
                ..OperationFilter::default()
            };
            let live = registry::operations_list(&context.client().await?, &filter, None, 1)
                .await?
                .pop();
            live.map(|operation| operation.id).ok_or_else(|| error.into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn version_after(context: &Context, tenant: &Tenant) -> anyhow::Result<SchemaVersion> {
    let found = registry::tenant_by_id(&context.client().await?, tenant.id).await?;
    Ok(found.map_or(tenant.db_version, |now| now.db_version))
}

fn tell(context: &Context, outcomes: &[Outcome], current: usize) -> anyhow::Result<()> {
    let failed = outcomes.iter().filter(|outcome| outcome.ended.is_err()).count();
    let migrated = outcomes.iter().filter(|outcome| outcome.was_migrated()).count();
    let current = current + outcomes.len() - failed - migrated;
    if context.out.json {
        return context.out.document(&json!({
            "codeVersion": migrator::latest(),
            "migrated": migrated,
            "current": current,
            "failed": failed,
            "tenants": outcomes.iter().map(document).collect::<Vec<_>>(),
        }));
    }
    if !outcomes.is_empty() {
        let rows = outcomes.iter().map(|outcome| {
            let (result, to) = match &outcome.ended {
                Ok(to) if outcome.was_migrated() => ("migrated".to_owned(), to.to_string()),
                Ok(to) => ("current already".to_owned(), to.to_string()),
                Err(error) => (format!("failed: {}", first_line(error)), "-".to_owned()),
            };
            vec![
                outcome.tenant.slug.to_string(),
                outcome.tenant.db_version.to_string(),
                to,
                result,
            ]
        });
        context
            .out
            .answer(&table(&["SLUG", "FROM", "TO", "RESULT"], rows))?;
    }
    context.out.note(&format!(
        "{migrated} migrated, {current} current already, {failed} failed"
    ));
    Ok(())
}

fn document(outcome: &Outcome) -> Value {
    json!({
        "slug": outcome.tenant.slug,
        "id": outcome.tenant.id,
        "operationId": outcome.operation,
        "from": outcome.tenant.db_version,
        "to": outcome.ended.as_ref().ok(),
        "error": outcome.ended.as_ref().err().map(|error| error_text(error.as_ref())),
    })
}

fn first_line(error: &anyhow::Error) -> String {
    error_text(error.as_ref())
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
