//! One attempt: claim, sign, send, write down what came of it.

use std::time::{Duration, Instant};

use identity::SealContext;
use jiff::Timestamp;
use model::{DeliveryId, EventType, WebhookId};
use registry::{
    Actor, Attempt, Claimed, Ended, NewAudit, NewOutboxEvent, OutboxEvent, Recipients, RegistryError,
    SwitchOff,
};
use reqwest::{Client, Response, StatusCode, header};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Outbox, OutboxError, address, http, secret, stats::Counts};

/// How much of a refusal's body is kept, in bytes: enough for the receiver's own word on it.
const EXCERPT_BYTES_MAX: usize = 200;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The delivery.
    pub delivery: DeliveryId,
    /// What the receiver answered, if it did.
    pub status_code: Option<u16>,
    /// Why it failed; none when the receiver has it.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What receivers read. The same event gives the same text in every attempt.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'a str,
    timestamp: Timestamp,
    data: Value,
}

fn body_of(event: &OutboxEvent) -> String {
    let mut data = event.data.clone();
    if let Some(data) = data.as_object_mut() {
        data.insert("sequence".to_owned(), json!(event.position));
    }
    let payload = Payload {
        r#type: &event.kind,
        timestamp: event.at,
        data,
    };
    // A document with text keys has a JSON form.
    serde_json::to_string(&payload).unwrap_or_default()
}

/// What came of a request.
struct Outcome {
    status: Option<StatusCode>,
    error: Option<String>,
    /// When the receiver wants to be asked again.
    again_after: Option<Duration>,
}

impl Outcome {
    fn failed(error: impl Into<String>) -> Self {
        Self {
            status: None,
            error: Some(error.into()),
            again_after: None,
        }
    }
}

impl Outbox {
    /// Sends one delivery now, out of turn, also to an address that is switched off. `None`: it has ended
    /// already, or another process is sending it.
    ///
    /// # Errors
    /// [`OutboxError::Registry`], [`OutboxError::Tls`]; that the receiver does not take it is no error.
    pub async fn send_now(&self, delivery: DeliveryId) -> Result<Option<Sent>, OutboxError> {
        let http = self.http().await?;
        match self.claim(&[], Some(delivery)).await? {
            Some(claimed) => Ok(Some(self.attempt(http, claimed).await?)),
            None => Ok(None),
        }
    }

    pub(crate) async fn http(&self) -> Result<&Client, OutboxError> {
        let inner = &self.inner;
        inner
            .http
            .get_or_try_init(|| async { http::client(&inner.config) })
            .await
    }

    pub(crate) async fn claim(
        &self,
        busy: &[WebhookId],
        only: Option<DeliveryId>,
    ) -> Result<Option<Claimed>, RegistryError> {
        let config = &self.inner.config;
        let client = config.registry.client().await?;
        registry::delivery_claim(&client, &self.inner.owner, config.lease(), busy, only).await
    }

    /// Sends what was claimed and writes down what came of it.
    pub(crate) async fn attempt(&self, http: &Client, claimed: Claimed) -> Result<Sent, OutboxError> {
        let config = &self.inner.config;
        let (began_at, began) = (config.clock.now(), Instant::now());
        let outcome = match self.request(http, &claimed).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::failed(error.to_string()),
        };
        let took = began.elapsed();
        let attempt = Attempt {
            began_at,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            worker: self.inner.owner.clone(),
            status_code: outcome.status.map(|status| status.as_u16()),
            error: outcome.error.clone(),
        };
        self.write_down(&claimed, &attempt, &outcome).await?;
        Ok(Sent {
            delivery: claimed.lease.delivery,
            status_code: attempt.status_code,
            error: attempt.error,
            took,
        })
    }

    async fn request(&self, http: &Client, claimed: &Claimed) -> Result<Outcome, OutboxError> {
        let config = &self.inner.config;
        let url = address::parse(&claimed.webhook.url, config.private_addresses)?;
        let body = body_of(&claimed.event);
        let (id, timestamp) = (claimed.event.id.to_string(), config.clock.now().as_second());
        let secrets = self.secrets(claimed)?;
        let Some(signature) = secret::sign(&secrets, &id, timestamp, &body) else {
            return Ok(Outcome::failed("its secret has not the form of one"));
        };
        let request = http
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        Ok(match request.send().await {
            Ok(response) => judge(response, config.clock.now()).await,
            Err(error) => Outcome::failed(http::describe(&error)),
        })
    }

    fn secrets(&self, claimed: &Claimed) -> Result<Vec<SecretString>, OutboxError> {
        let webhook = &claimed.webhook;
        let context = SealContext::Webhook(webhook.id);
        [Some(&webhook.secret), webhook.secret_before.as_ref()]
            .into_iter()
            .flatten()
            .map(|sealed| {
                let opened = self.inner.config.sealer.open(&context, sealed);
                opened.map_err(|error| OutboxError::Sealed {
                    webhook: webhook.id,
                    why: error.to_string(),
                })
            })
            .collect()
    }

    /// How it goes on: delivered, tried again, or given up.
    fn next(&self, claimed: &Claimed, outcome: &Outcome) -> Ended {
        let config = &self.inner.config;
        if outcome.error.is_none() {
            return Ended::Delivered;
        }
        let delay = config.backoff(claimed.attempt, outcome.again_after);
        if claimed.attempt >= config.attempts_max || claimed.age + delay > config.age_max {
            return Ended::GivenUp;
        }
        Ended::Again(delay)
    }

    async fn write_down(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        outcome: &Outcome,
    ) -> Result<(), OutboxError> {
        let config = &self.inner.config;
        let ended = self.next(claimed, outcome);
        let rule = SwitchOff {
            after: config.off_after,
            failures: config.off_failures,
            // Standard Webhooks: the receiver does not want it any more.
            at_once: outcome.status == Some(StatusCode::GONE),
        };
        let switched_off = config
            .registry
            .in_txn_once(async |txn| {
                if !registry::delivery_end_in_txn(txn, &claimed.lease, attempt, ended).await? {
                    return Ok(false);
                }
                let Some(error) = &outcome.error else {
                    registry::webhook_reached(txn, claimed.webhook.id).await?;
                    return Ok(false);
                };
                let why = match rule.at_once {
                    true => "the receiver answered 410 Gone".to_owned(),
                    false => format!("nothing got through for too long; last: {error}"),
                };
                if let Some(asked) = outcome.again_after {
                    let held = asked.min(config.backoff_max);
                    registry::webhook_hold_in_txn(txn, claimed.webhook.id, held).await?;
                }
                if !registry::webhook_failed_in_txn(txn, claimed.webhook.id, &rule, &why).await? {
                    return Ok(false);
                }
                self.notify_of_switching_off(txn, claimed, &why).await?;
                Ok(true)
            })
            .await?;
        self.count(attempt, outcome, ended, switched_off);
        let (webhook, event) = (claimed.webhook.id, claimed.event.id);
        match (&outcome.error, ended) {
            (None, _) => {
                tracing::debug!(webhook.id = %webhook, event.id = %event, took_ms = attempt.took_ms, "webhook delivered");
            }
            (Some(error), Ended::GivenUp) => {
                tracing::warn!(webhook.id = %webhook, event.id = %event, attempt = claimed.attempt, error,
                    "a webhook's delivery is given up; `tenantctl webhooks redeliver` queues it again");
            }
            (Some(error), _) => {
                tracing::info!(webhook.id = %webhook, event.id = %event, attempt = claimed.attempt, error,
                    "a webhook's delivery failed and will be tried again");
            }
        }
        if switched_off {
            tracing::warn!(webhook.id = %webhook,
                "a webhook to which nothing gets through is switched off; `tenantctl webhooks enable` \
                 switches it on again");
        }
        Ok(())
    }

    async fn notify_of_switching_off(
        &self,
        txn: &registry::RegistryTransaction<'_>,
        claimed: &Claimed,
        why: &str,
    ) -> Result<(), RegistryError> {
        let webhook = &claimed.webhook;
        let detail =
            json!({ "webhook": { "id": webhook.id, "description": webhook.description }, "why": why });
        let audit = NewAudit {
            actor: &Actor::Worker(self.inner.owner.clone()),
            action: "webhook.switched_off",
            tenant: None,
            detail: detail.clone(),
            request_id: None,
            client_ip: None,
        };
        registry::audit_insert(txn, &audit).await?;
        let event = NewOutboxEvent {
            kind: EventType::WebhookDisabled,
            tenant: None,
            recipients: Recipients::All,
            data: detail,
        };
        registry::outbox_insert(txn, &event).await.map(|_id| ())
    }

    fn count(&self, attempt: &Attempt, outcome: &Outcome, ended: Ended, switched_off: bool) {
        let counts = &self.inner.counts;
        let one = |when: bool| u64::from(when);
        Counts::add(&counts.delivered, one(outcome.error.is_none()));
        Counts::add(&counts.failed, one(outcome.error.is_some()));
        Counts::add(&counts.given_up, one(ended == Ended::GivenUp));
        Counts::add(&counts.switched_off, one(switched_off));
        Counts::add(&counts.took_ms, attempt.took_ms);
    }
}

/// 2xx means that the receiver has it. A redirect is a refusal: the address is to be registered as it is.
async fn judge(response: Response, now: Timestamp) -> Outcome {
    let status = response.status();
    let again_after = again_after(response.headers(), now);
    if status.is_success() {
        return Outcome {
            status: Some(status),
            error: None,
            again_after: None,
        };
    }
    let said = excerpt(response).await;
    let hint = if status.is_redirection() {
        "; redirects are not followed, register the address that it leads to"
    } else {
        ""
    };
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    Outcome {
        status: Some(status),
        error: Some(format!("the receiver answered {status}{hint}{said}")),
        again_after,
    }
}

/// What `Retry-After` asks for (RFC 9110, 10.2.3): seconds, or a date, which is read by the receiver's own
/// clock where it shows that, and by ours, `now`, where it does not. A date that has passed is no wait.
fn again_after(headers: &header::HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let theirs = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    until.duration_since(theirs.unwrap_or_else(|| now.into())).ok()
}

/// The beginning of an answer, as one line of plain text. No more of it is read.
async fn excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < EXCERPT_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(EXCERPT_BYTES_MAX)]),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(EXCERPT_BYTES_MAX);
    let text = String::from_utf8_lossy(&bytes);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}
