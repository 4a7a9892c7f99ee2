//! The platform's own staff.

use identity::PasswordContext;
use model::{Email, OperatorId};
use registry::{
    Change, NewAudit, NewOperator, audit_insert, operator_set_active_in_txn, operator_set_password_in_txn,
};
use serde_json::json;

use crate::{
    cli::Operator,
    context::Context,
    outcome::Refusal,
    output::{moment, table},
    password::{self, NewPassword},
    view::OperatorView,
};

pub(crate) async fn run(context: &Context, what: Operator) -> anyhow::Result<()> {
    match what {
        Operator::Create {
            email,
            name,
            password_stdin,
        } => {
            let known = PasswordContext::of(&email);
            let variable = "TENANTRY_OPERATOR_PASSWORD";
            let password = password::obtain(email.as_str(), &known, password_stdin, variable)?;
            let local_part = email.as_str().split('@').next().unwrap_or_default().to_owned();
            let new = NewOperator {
                id: OperatorId::generate(),
                display_name: named(name.as_deref().unwrap_or(&local_part))?,
                email,
                password_hash: context.platform.passwords.hash(&password.chosen).await?.into(),
            };
            let made = insert(context, &new).await?;
            told(context, &made, "created", &password)
        }
        Operator::List => {
            let operators = registry::operators_list(&context.client().await?).await?;
            if context.out.json {
                let views: Vec<OperatorView> = operators.iter().map(OperatorView::from).collect();
                return context.out.document(&json!({"operators": views}));
            }
            let rows = operators.iter().map(|operator| {
                let state = if operator.disabled_at.is_some() {
                    "disabled"
                } else {
                    ""
                };
                vec![
                    operator.email.to_string(),
                    operator.display_name.clone(),
                    moment(operator.created_at),
                    state.to_owned(),
                ]
            });
            context
                .out
                .answer(&table(&["E-MAIL", "NAME", "CREATED", ""], rows))
        }
        Operator::SetPassword {
            email,
            password_stdin,
        } => set_password(context, &email, password_stdin).await,
        Operator::Disable { email } => set_active(context, &email, false).await,
        Operator::Enable { email } => set_active(context, &email, true).await,
    }
}

/// The most characters of a person's name.
const NAME_MAX: usize = 200;

/// The name in its normal form.
fn named(name: &str) -> anyhow::Result<String> {
    let normal = model::text::line(name, NAME_MAX);
    Ok(normal.map_err(|error| Refusal::Usage(format!("the person's name {error}")))?)
}

/// Registers a person, with the line in the audit that says who did it.
async fn insert(context: &Context, new: &NewOperator) -> anyhow::Result<registry::Operator> {
    let by = context.requested_by(None);
    let made = (context.platform.registry)
        .in_txn(async |txn| {
            let made = registry::operator_insert(txn, new).await?;
            let entry = NewAudit {
                actor: &by.actor,
                action: "operator.created",
                tenant: None,
                detail: json!({ "operator": made.id, "email": made.email }),
                request_id: None,
                client_ip: None,
            };
            audit_insert(txn, &entry).await?;
            Ok(made)
        })
        .await?;
    Ok(made)
}

async fn find(context: &Context, email: &Email) -> anyhow::Result<registry::Operator> {
    let found = registry::operator_by_email(&context.client().await?, email).await?;
    Ok(found.ok_or_else(|| {
        Refusal::NotFound(format!(
            "no operator is registered as {email}; see `tenantctl operator list`"
        ))
    })?)
}

async fn set_password(context: &Context, email: &Email, from_stdin: bool) -> anyhow::Result<()> {
    let operator = find(context, email).await?;
    let known = PasswordContext::of(&operator.email);
    let password = password::obtain(email.as_str(), &known, from_stdin, "TENANTRY_OPERATOR_PASSWORD")?;
    let hash = context.platform.passwords.hash(&password.chosen).await?.into();
    let by = context.requested_by(None);
    let changed = (context.platform.registry)
        .in_txn(async |txn| {
            let change = Change::by(&by.actor);
            operator_set_password_in_txn(txn, operator.id, &hash, &change).await
        })
        .await?;
    told(context, &changed, "has a new password", &password)
}

async fn set_active(context: &Context, email: &Email, active: bool) -> anyhow::Result<()> {
    let operator = find(context, email).await?;
    let by = context.requested_by(None);
    let changed = (context.platform.registry)
        .in_txn(async |txn| {
            let change = Change::by(&by.actor);
            operator_set_active_in_txn(txn, operator.id, active, &change).await
        })
        .await?;
    if context.out.json {
        return context
            .out
            .document(&json!({"operator": OperatorView::from(&changed)}));
    }
    let state = if active { "enabled" } else { "disabled" };
    context
        .out
        .answer(&format!("operator {} {state} ({})", changed.email, changed.id))
}

fn told(
    context: &Context,
    operator: &registry::Operator,
    what: &str,
    password: &NewPassword,
) -> anyhow::Result<()> {
    if context.out.json {
        return context.out.document(&json!({
            "operator": OperatorView::from(operator),
            "generatedPassword": password.to_show(),
        }));
    }
    context
        .out
        .answer(&format!("operator {} {what} ({})", operator.email, operator.id))?;
    if let Some(generated) = password.to_show() {
        context
            .out
            .tell(&format!("generated password, shown only now: {generated}"));
    }
    Ok(())
}
