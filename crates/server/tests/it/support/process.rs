//! `tenantd` as a process.

use std::{collections::HashMap, path::PathBuf, process::Stdio};

use reqwest::Client;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::Space;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{Call, LIMIT, PASSWORD, Reply};

/// A running `tenantd`.
pub(crate) struct Tenantd {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: Client,
    log: PathBuf,
}

/// What the environment of `tenantd` is made of, so that a test can change it.
pub(crate) fn environment(space: &Space) -> HashMap<String, String> {
    let registry = &space.registry;
    let pairs = [
        ("MASTER_PGHOST", registry.host.clone()),
        ("MASTER_PGPORT", registry.port.to_string()),
        ("MASTER_PGUSER", registry.user.clone()),
        ("MASTER_PGPASSWORD", registry.password.expose_secret().to_owned()),
        ("MASTER_PGDATABASE", registry.database.clone()),
        ("TENANTRY_NAMES_NAMESPACE", space.namespace.as_str().to_owned()),
        (
            "TENANTRY_STATE_DIR",
            space.dir().join("state").display().to_string(),
        ),
        ("TENANTRY_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("TENANTRY_HTTP_WORKERS", "2".to_owned()),
        ("TENANTRY_HTTP_SHUTDOWN_ANNOUNCE_MS", "0".to_owned()),
        ("TENANTRY_REGISTRY_POOL_MAX", "4".to_owned()),
        ("TENANTRY_ROUTER_POOL_SIZE_MAX", "4".to_owned()),
        ("TENANTRY_WORKER_LEASE_S", "2".to_owned()),
        ("TENANTRY_WORKER_POLL_MS", "200".to_owned()),
        // What a test looks for on its server is what it asked for; the provisioner has tests of its own for
        // spares.
        ("TENANTRY_WORKER_SPARES", "0".to_owned()),
        ("TENANTRY_WORKER_ROUTERS_GRACE_MS", "500".to_owned()),
        ("TENANTRY_LOG_FORMAT", "json".to_owned()),
    ];
    let mut env: HashMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value)).into();
    env.insert("PATH".to_owned(), std::env::var("PATH").unwrap_or_default());
    env
}

impl Tenantd {
    /// Starts it and waits for the line that says where it listens.
    pub(crate) async fn start(space: &Space, env: HashMap<String, String>) -> Self {
        let log = space.dir().join(format!("tenantd-{}.log", uuid::Uuid::now_v7()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_tenantd"))
            .env_clear()
            .envs(env)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .expect("tenantd says where it listens");
        let Some(line) = first.unwrap() else {
            panic!(
                "tenantd ended before it listened:\n{}",
                std::fs::read_to_string(&log).unwrap()
            );
        };
        let url = line
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{line:?}"))
            .trim()
            .to_owned();
        Self {
            child,
            url,
            client: Client::new(),
            log,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged so far; lines of the last moment may be on their way.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has logged this.
    pub(crate) async fn logged(&self, text: &str) {
        testkit::eventually(&format!("{text:?} in the log"), LIMIT, async || {
            self.log().contains(text)
        })
        .await;
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .await
            .unwrap();
        assert!(status.success());
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop and gives its exit code.
    pub(crate) async fn stop(self) -> Option<i32> {
        self.stop_and_log().await.0
    }

    /// Asks it to stop and gives its exit code and its whole log.
    pub(crate) async fn stop_and_log(mut self) -> (Option<i32>, String) {
        self.signal("TERM").await;
        let code = self.ended().await;
        (code, self.log())
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .expect("tenantd ends")
            .unwrap()
            .code()
    }

    /// Sends a request.
    pub(crate) async fn send(&self, call: &Call, token: &str) -> Reply {
        Self::send_with(&self.client, &self.url, call, token).await
    }

    /// Sends a request without holding the process.
    pub(crate) async fn send_with(client: &Client, url: &str, call: &Call, token: &str) -> Reply {
        let mut request = client
            .request(call.method.clone(), format!("{url}{}", call.path))
            .timeout(LIMIT);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{call:?}: {error}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply {
            status,
            headers,
            text,
            json,
        }
    }

    /// Starts it where it cannot run, and gives what it said at its end.
    pub(crate) async fn fails_to_start(space: &Space, env: HashMap<String, String>) -> String {
        Self::fails_with_code(space, env).await.1
    }

    /// Starts one that must end by itself; gives its exit code and what it said.
    pub(crate) async fn fails_with_code(
        space: &Space,
        env: HashMap<String, String>,
    ) -> (Option<i32>, String) {
        let ended = Command::new(env!("CARGO_BIN_EXE_tenantd"))
            .env_clear()
            .envs(env)
            .current_dir(space.dir())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, ended)
            .await
            .expect("tenantd ends")
            .unwrap();
        assert!(!output.status.success());
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Reply {
        self.send(&Call::new("GET", path), token).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Reply {
        self.send(&Call::new("POST", path).json(&body), token).await
    }

    /// A log-in that must succeed; gives the token.
    pub(crate) async fn log_in(&self, email: &str, tenant: Option<&str>) -> String {
        let reply = self.try_log_in(email, PASSWORD, tenant).await.expect(200);
        reply["accessToken"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn try_log_in(&self, email: &str, password: &str, tenant: Option<&str>) -> Reply {
        let mut body = json!({ "email": email, "password": password });
        if let Some(tenant) = tenant {
            body["tenant"] = json!(tenant);
        }
        self.post("", "/api/v1/auth/login", body).await
    }
}
