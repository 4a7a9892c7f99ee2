//! Addresses to which events are sent, and what became of each event.

use std::time::Duration;

use model::{DeliveryId, EventType, WebhookId};
use outbox::{NewAddress, Sent};
use registry::{Delivery, DeliveryFilter, Webhook};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::{
    cli::Webhooks,
    context::Context,
    find::IdRef,
    outcome::Refusal,
    output::{moment, moment_or_dash, pairs, table},
    view::{DeliveryView, WebhookView},
};

/// How many deliveries are shown with an address.
const LATEST: u32 = 10;

pub(crate) async fn run(context: &Context, what: Webhooks) -> anyhow::Result<()> {
    let id = async |wanted: &IdRef<WebhookId>| wanted.id(&context.client().await?).await;
    match what {
        Webhooks::Add {
            url,
            events,
            description,
        } => add(context, url, events, description).await,
        Webhooks::List => list(context).await,
        Webhooks::Show { webhook } => show(context, id(&webhook).await?).await,
        Webhooks::Remove { webhook } => {
            let webhook = id(&webhook).await?;
            let by = context.requested_by(None);
            context.platform.outbox.remove(webhook, &by.change()).await?;
            if context.out.json {
                return context.out.document(&json!({"removed": webhook}));
            }
            context.out.answer(&format!("webhook {webhook} removed"))
        }
        Webhooks::Rotate { webhook, overlap } => rotate(context, id(&webhook).await?, overlap).await,
        Webhooks::Enable { webhook } => {
            let webhook = id(&webhook).await?;
            let by = context.requested_by(None);
            let webhook = context.platform.outbox.enable(webhook, &by.change()).await?;
            changed(context, &webhook, "is switched on")
        }
        Webhooks::Disable { webhook, reason } => {
            let webhook = id(&webhook).await?;
            let by = context.requested_by(reason);
            let webhook = context.platform.outbox.disable(webhook, &by.change()).await?;
            changed(context, &webhook, "is switched off")
        }
        Webhooks::Test { webhook } => {
            let webhook = id(&webhook).await?;
            let by = context.requested_by(None);
            let delivery = context.platform.outbox.test(webhook, &by.change()).await?;
            send(context, delivery.id).await
        }
        Webhooks::Deliveries {
            webhook,
            status,
            limit,
        } => {
            let webhook = match &webhook {
                Some(wanted) => Some(id(wanted).await?),
                None => None,
            };
            let filter = DeliveryFilter {
                webhook,
                status,
                event: None,
            };
            deliveries(context, &filter, limit).await
        }
        Webhooks::Redeliver { delivery } => {
            let delivery = delivery.id(&context.client().await?).await?;
            let by = context.requested_by(None);
            context.platform.outbox.redeliver(delivery, &by.change()).await?;
            send(context, delivery).await
        }
    }
}

async fn add(
    context: &Context,
    url: String,
    event_types: Vec<EventType>,
    description: String,
) -> anyhow::Result<()> {
    let new = NewAddress {
        url,
        description,
        event_types,
    };
    let by = context.requested_by(None);
    let (webhook, secret) = context.platform.outbox.add(new, &by.change()).await?;
    told(context, &webhook, "registered", &secret)
}

async fn rotate(context: &Context, webhook: WebhookId, overlap: Duration) -> anyhow::Result<()> {
    let by = context.requested_by(None);
    let (webhook, secret) = context
        .platform
        .outbox
        .rotate(webhook, overlap, &by.change())
        .await?;
    told(context, &webhook, "has a new secret", &secret)
}

/// Something with a secret that is shown once.
fn told(context: &Context, webhook: &Webhook, what: &str, secret: &SecretString) -> anyhow::Result<()> {
    let secret = secret.expose_secret();
    if context.out.json {
        return context
            .out
            .document(&json!({"webhook": WebhookView::from(webhook), "secret": secret}));
    }
    context.out.answer(&format!("webhook {} {what}", webhook.id))?;
    context.out.tell(&format!("secret, shown only now: {secret}"));
    if let Some(until) = webhook.secret_before_until {
        let until = moment(until);
        context.out.note(&format!(
            "deliveries are signed with the secret before too until {until}"
        ));
    }
    Ok(())
}

fn changed(context: &Context, webhook: &Webhook, what: &str) -> anyhow::Result<()> {
    if context.out.json {
        return context
            .out
            .document(&json!({"webhook": WebhookView::from(webhook)}));
    }
    context.out.answer(&format!("webhook {} {what}", webhook.id))
}

fn types(webhook: &Webhook) -> String {
    if webhook.event_types.is_empty() {
        return "all".to_owned();
    }
    let words: Vec<&str> = webhook.event_types.iter().map(|kind| kind.as_str()).collect();
    words.join(", ")
}

fn standing(webhook: &Webhook) -> String {
    match (webhook.disabled_at, webhook.failing_since) {
        (Some(_), _) => "off".to_owned(),
        (None, Some(since)) => format!("failing since {}", moment(since)),
        (None, None) => "on".to_owned(),
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let webhooks = registry::webhooks_list(&context.client().await?).await?;
    if context.out.json {
        let views: Vec<WebhookView> = webhooks.iter().map(WebhookView::from).collect();
        return context.out.document(&json!({"webhooks": views}));
    }
    if webhooks.is_empty() {
        context
            .out
            .note("no webhook yet; `tenantctl webhooks add https://…` registers one");
        return Ok(());
    }
    let rows = webhooks.iter().map(|webhook| {
        vec![
            webhook.id.to_string(),
            webhook.url.clone(),
            types(webhook),
            standing(webhook),
            webhook.description.clone(),
        ]
    });
    context
        .out
        .answer(&table(&["ID", "URL", "EVENTS", "STATE", ""], rows))
}

async fn show(context: &Context, id: WebhookId) -> anyhow::Result<()> {
    let client = context.client().await?;
    let Some(webhook) = registry::webhook_by_id(&client, id).await? else {
        let message = format!("there is no webhook {id}; `tenantctl webhooks list` shows all");
        return Err(Refusal::NotFound(message).into());
    };
    let filter = DeliveryFilter {
        webhook: Some(id),
        ..DeliveryFilter::default()
    };
    let latest = registry::deliveries_list(&client, &filter, None, LATEST).await?;
    if context.out.json {
        let views: Vec<DeliveryView> = latest.iter().map(DeliveryView::from).collect();
        return context
            .out
            .document(&json!({"webhook": WebhookView::from(&webhook), "deliveries": views}));
    }
    let mut rows = vec![
        ("id", webhook.id.to_string()),
        ("url", webhook.url.clone()),
        ("description", webhook.description.clone()),
        ("events", types(&webhook)),
        ("state", standing(&webhook)),
        (
            "registered",
            format!("{} by {}", moment(webhook.created_at), webhook.created_by),
        ),
    ];
    if let Some(why) = &webhook.disabled_why {
        rows.push(("why", why.clone()));
    }
    context
        .out
        .answer(&format!("{}\n\n{}", pairs(rows), rows_of(&latest)))
}

fn rows_of(deliveries: &[Delivery]) -> String {
    let rows = deliveries.iter().map(|delivery| {
        vec![
            delivery.id.to_string(),
            delivery.kind.clone(),
            delivery.status.to_string(),
            delivery.attempts.to_string(),
            moment(delivery.queued_at),
            moment_or_dash(delivery.ended_at),
            delivery
                .took_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
            delivery.error.clone().unwrap_or_default(),
        ]
    });
    let header = [
        "DELIVERY", "EVENT", "STATUS", "TRIES", "QUEUED", "ENDED", "TOOK", "ERROR",
    ];
    table(&header, rows)
}

async fn deliveries(context: &Context, filter: &DeliveryFilter, limit: u32) -> anyhow::Result<()> {
    let found = registry::deliveries_list(&context.client().await?, filter, None, limit).await?;
    if context.out.json {
        let views: Vec<DeliveryView> = found.iter().map(DeliveryView::from).collect();
        return context.out.document(&json!({"deliveries": views}));
    }
    if found.is_empty() {
        context.out.note("no delivery");
        return Ok(());
    }
    context.out.answer(&rows_of(&found))
}

/// Sends a delivery from here; one that a running `tenantd` took first is its to send.
async fn send(context: &Context, delivery: DeliveryId) -> anyhow::Result<()> {
    let sent = context.platform.outbox.send_now(delivery).await?;
    if let Some(error) = sent.as_ref().and_then(|sent| sent.error.as_ref()) {
        anyhow::bail!("{error}; a running tenantd tries again");
    }
    if context.out.json {
        let now = registry::delivery_by_id(&context.client().await?, delivery).await?;
        let view = now.as_ref().map(DeliveryView::from);
        return context.out.document(&json!({"delivery": view}));
    }
    let Some(Sent {
        status_code, took, ..
    }) = sent
    else {
        context.out.note(&format!(
            "a running tenantd sends it; see `tenantctl webhooks deliveries` for delivery {delivery}"
        ));
        return Ok(());
    };
    let code = status_code.map(|code| code.to_string()).unwrap_or_default();
    context.out.answer(&format!(
        "delivered: the receiver answered {code} after {} ms",
        took.as_millis()
    ))
}
