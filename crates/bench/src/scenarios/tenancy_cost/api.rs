//! Laboratories, made and filled through the product's own API.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

pub(super) const OPERATOR: &str = "ops@platform.example";
pub(super) const PASSWORD: &str = "a password for nobody";
/// Provisioned together; `tenantd` makes four at a time.
const PROVISIONED_AT_ONCE: usize = 8;
const PROVISION_LIMIT: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A laboratory with a person who may read, and the patients to read.
#[derive(Debug, Clone)]
pub(super) struct Laboratory {
    /// Its admin's.
    pub(super) token: String,
    /// Their ids.
    pub(super) patients: Vec<String>,
}

pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    operator: String,
}

impl Api {
    /// Logs the operator in.
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut api = Self {
            http: reqwest::Client::new(),
            url: format!("http://{address}"),
            operator: String::new(),
        };
        let body = json!({ "email": OPERATOR, "password": PASSWORD });
        let session = api.post("/api/v1/operators/login", "", &body).await?;
        api.operator = text(&session, "accessToken")?;
        Ok(api)
    }

    /// Makes laboratories with `patients` each and logs their admins in.
    pub(super) async fn laboratories(
        &self,
        slugs: &[String],
        patients: usize,
    ) -> anyhow::Result<Vec<Laboratory>> {
        let mut made = Vec::with_capacity(slugs.len());
        for some in slugs.chunks(PROVISIONED_AT_ONCE) {
            let mut operations = Vec::with_capacity(some.len());
            for slug in some {
                let admin = json!({ "email": email(slug), "displayName": "Ada Admin", "password": PASSWORD });
                let body = json!({ "slug": slug, "name": slug, "admin": admin });
                let accepted = self.post("/api/v1/tenants", &self.operator, &body).await?;
                operations.push(text(&accepted, "operationId")?);
            }
            for operation in &operations {
                self.finished(operation).await?;
            }
            for slug in some {
                made.push(self.fill(slug, patients).await?);
            }
        }
        Ok(made)
    }

    async fn finished(&self, operation: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/operations/{operation}", self.url);
        let waiting = async {
            loop {
                let answer = self.http.get(&url).bearer_auth(&self.operator).send().await?;
                let found: Value = serde_json::from_str(&answer.text().await?)?;
                match found["status"].as_str() {
                    Some("succeeded") => return Ok(()),
                    Some("failed") => bail!("a laboratory was not made: {found}"),
                    _ => sleep(POLL_EVERY).await,
                }
            }
        };
        timeout(PROVISION_LIMIT, waiting)
            .await
            .context("a laboratory takes too long to be made")?
    }

    async fn fill(&self, slug: &str, patients: usize) -> anyhow::Result<Laboratory> {
        let body = json!({ "email": email(slug), "password": PASSWORD, "tenant": slug });
        let session = self.post("/api/v1/auth/login", "", &body).await?;
        let token = text(&session, "accessToken")?;
        let mut ids = Vec::with_capacity(patients);
        for number in 0..patients {
            let body = json!({
                "familyName": format!("Family {number}"),
                "givenName": "Given",
                "sex": "F",
                "birthDate": "1970-01-01",
            });
            let patient = self.post("/api/v1/patients", &token, &body).await?;
            ids.push(text(&patient, "id")?);
        }
        Ok(Laboratory { token, patients: ids })
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> anyhow::Result<Value> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "POST {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

fn email(slug: &str) -> String {
    format!("admin@{slug}.example")
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let found = value[field].as_str();
    Ok(found
        .with_context(|| format!("no {field} in {value}"))?
        .to_owned())
}
