//! Bringing a laboratory's schema to this code's version.

use model::{OperationKind, TenantState};
use serde_json::json;

use crate::{
    engine::{Context, Saw},
    server::{mend_password, rights, settle},
};

/// A fresh clone is at the latest version already and costs one look.
pub(crate) async fn ensure_schema(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    // A laboratory in the making is looked at through its own role, whose connection the next steps need anyway.
    let before = match cx.operation.kind {
        OperationKind::Provision => migrator::history_version(&*cx.own(&tenant).await?).await?,
        _ => migrator::history_version(&*cx.inside(&tenant).await?).await?,
    };
    let after = if before == migrator::latest() {
        before
    } else {
        cx.pass_return(&cx.inner.config.registry.client().await?).await?;
        let target = cx
            .inner
            .admin(&tenant)
            .await?
            .with_database(tenant.db_name.as_str());
        let group = cx.inner.config.namespace.tenant_group(tenant.id);
        migrator::migrate_database(&target, &group).await?
    };
    if cx.operation.kind == OperationKind::Provision {
        return Ok(json!({ "from": before, "to": after }));
    }
    let held = cx.maintenance(&tenant).await?;
    let settled = rights(cx.inner, &held, &tenant, &tenant.db_name)
        .await?
        .are_settled();
    if !settled {
        settle(cx.inner, &held, &tenant, &tenant.db_name).await?;
    }
    let password = tenant.status == TenantState::Active && mend_password(cx, &held, &tenant).await?;
    Ok(json!({ "from": before, "to": after, "rights_settled": !settled, "password_put_back": password }))
}

/// Writes down what the laboratory's own history says, and never what a migration was meant to reach.
pub(crate) async fn record_version(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let found = migrator::history_version(&*cx.inside(&tenant).await?).await?;
    let client = cx.inner.config.registry.client().await?;
    let recorded = registry::tenant_set_db_version(&client, tenant.id, found).await?;
    Ok(json!({ "found": found, "recorded": recorded }))
}
