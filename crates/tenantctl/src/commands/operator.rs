//! The platform's own staff.

use model::OperatorId;
use registry::NewOperator;
use serde_json::json;

use crate::{
    cli::Operator,
    context::Context,
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
            let password = password::obtain(email.as_str(), password_stdin, "TENANTRY_OPERATOR_PASSWORD")?;
            let local_part = email.as_str().split('@').next().unwrap_or_default().to_owned();
            let new = NewOperator {
                id: OperatorId::generate(),
                display_name: name.unwrap_or(local_part),
                email,
                password_hash: context.platform.passwords.hash(&password.secret).await?.into(),
            };
            let made = registry::operator_insert(&context.client().await?, &new).await?;
            created(context, &made, &password)
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
    }
}

fn created(context: &Context, made: &registry::Operator, password: &NewPassword) -> anyhow::Result<()> {
    if context.out.json {
        return context.out.document(&json!({
            "operator": OperatorView::from(made),
            "generatedPassword": password.to_show(),
        }));
    }
    context
        .out
        .answer(&format!("operator {} created ({})", made.email, made.id))?;
    if let Some(generated) = password.to_show() {
        context
            .out
            .tell(&format!("generated password, shown only now: {generated}"));
    }
    Ok(())
}
