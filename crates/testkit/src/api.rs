//! A thin client of the HTTP API: it sends what a test says and shows all that comes back.

use std::time::Duration;

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// One client, logged in or not. Cloning it is cheap.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body as JSON, of an answer with this status.
    ///
    /// # Panics
    /// When the status is another; the body is in the message.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Api {
    /// A client of the server at `url`, such as `http://127.0.0.1:8080`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.into(),
            token: None,
        }
    }

    /// The same server with this bearer token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The bearer token that it sends.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Logs somebody of a laboratory in; `tenant` is its slug or id, where it must be named.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn log_in(&self, email: &str, password: &str, tenant: Option<&str>) -> Self {
        let body = json!({ "email": email, "password": password, "tenant": tenant });
        self.session("/api/v1/auth/login", &body).await
    }

    /// Logs an operator of the platform in.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn log_in_operator(&self, email: &str, password: &str) -> Self {
        self.session(
            "/api/v1/operators/login",
            &json!({ "email": email, "password": password }),
        )
        .await
    }

    async fn session(&self, path: &str, body: &Value) -> Self {
        let session = self
            .post(path, body)
            .await
            .expect("the server answers")
            .expect(200);
        self.with_token(
            session["accessToken"]
                .as_str()
                .expect("a session has an access token"),
        )
    }

    /// `GET`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.send_json(Method::POST, path, body).await
    }

    /// Any method, with JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send_json(&self, method: Method, path: &str, body: &Value) -> reqwest::Result<Answer> {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string().into_bytes())
            .await
    }

    /// Any method, headers and body. `path` begins with a slash.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> reqwest::Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .timeout(REQUEST_LIMIT)
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }
}
