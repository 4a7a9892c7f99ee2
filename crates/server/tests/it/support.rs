//! The real `tenantd` as a process of its own, and a client that speaks to it.

use std::{collections::HashMap, path::PathBuf, process::Stdio, time::Duration};

use reqwest::{Client, Method, header::HeaderMap};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::Space;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Generous: it is spent only when something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// The password of everybody in these tests.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running `tenantd`.
pub(crate) struct Tenantd {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: Client,
    log: PathBuf,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }

    /// Checks that this is a problem of this status and code, whole and with nothing of our insides.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.text
        );
        assert_eq!(self.json["type"], format!("/problems/{code}"));
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["traceId"].as_str().unwrap().len(), 32, "{}", self.text);
        for inside in ["SQLSTATE", "panicked", "tokio", "postgres:", "password="] {
            assert!(!self.text.contains(inside), "{inside} in {}", self.text);
        }
    }
}

/// One request, to be sent as somebody.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Call {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self {
            method: method.parse().unwrap(),
            path: path.into(),
            body: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn version(self, version: &Value) -> Self {
        self.header("if-match", format!("\"{version}\""))
    }
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
        ("TENANTRY_REGISTRY_POOL_MAX", "4".to_owned()),
        ("TENANTRY_ROUTER_POOL_SIZE_MAX", "4".to_owned()),
        ("TENANTRY_WORKER_LEASE_S", "2".to_owned()),
        ("TENANTRY_WORKER_POLL_MS", "200".to_owned()),
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

    /// Everything that it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
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
    pub(crate) async fn stop(mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.ended().await
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
        String::from_utf8(output.stderr).unwrap()
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

/// The result of a test within an order, a report or a worklist.
#[track_caller]
pub(crate) fn by_code<'a>(order: &'a Value, code: &str) -> &'a Value {
    let results = order["results"]
        .as_array()
        .unwrap_or_else(|| panic!("no results in {order}"));
    results
        .iter()
        .find(|result| result["code"] == code)
        .unwrap_or_else(|| panic!("no {code} in {order}"))
}

/// The unit of a test of the standard catalogue.
pub(crate) fn unit_of(code: &str) -> &'static str {
    match code {
        "K" => "mmol/L",
        "GLU" => "mg/dL",
        other => panic!("no unit of {other} is known here"),
    }
}

/// One laboratory with a person in each role.
pub(crate) struct Lab {
    pub(crate) slug: String,
    pub(crate) id: String,
    pub(crate) admin: String,
    pub(crate) receptionist: String,
    pub(crate) technician: String,
    pub(crate) supervisor: String,
    /// Another one: who proposes an amendment may not verify it.
    pub(crate) second_supervisor: String,
}

impl Lab {
    /// The address of the person in a role.
    pub(crate) fn email(slug: &str, role: &str) -> String {
        format!("{role}@{slug}.example")
    }

    /// Registers a patient of a name that nobody else has.
    pub(crate) async fn patient(&self, d: &Tenantd) -> Value {
        let name = format!("P{}", uuid::Uuid::now_v7().simple());
        let body = json!({ "familyName": name, "givenName": "Ada", "sex": "F", "birthDate": "1980-04-01" });
        d.post(&self.receptionist, "/api/v1/patients", body)
            .await
            .expect(201)
    }

    pub(crate) async fn order(&self, d: &Tenantd, patient: &Value, tests: &[&str]) -> Value {
        let body =
            json!({ "patientId": patient, "priority": "routine", "requester": "Dr. Grey", "tests": tests });
        d.post(&self.receptionist, "/api/v1/orders", body)
            .await
            .expect(201)
    }

    /// Collects and receives every specimen of an order.
    pub(crate) async fn draw(&self, d: &Tenantd, order: &Value) {
        for specimen in order["specimens"].as_array().unwrap() {
            let at = format!("/api/v1/specimens/{}", specimen["barcode"].as_str().unwrap());
            d.post(&self.receptionist, &format!("{at}/collect"), json!({}))
                .await
                .expect(200);
            d.post(&self.technician, &format!("{at}/receive"), json!({}))
                .await
                .expect(200);
        }
    }

    /// A new patient with an order whose specimens are in the laboratory.
    pub(crate) async fn received_order(&self, d: &Tenantd, tests: &[&str]) -> (Value, Value) {
        let patient = self.patient(d).await;
        let order = self.order(d, &patient["id"], tests).await;
        self.draw(d, &order).await;
        let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
        let order = d.get(&self.technician, &path).await.expect(200);
        (patient, order)
    }

    /// The call that enters a value.
    pub(crate) fn value_call(result: &Value, value: &str) -> Call {
        let path = format!("/api/v1/results/{}/value", result["id"].as_str().unwrap());
        let body = json!({ "value": value, "unit": unit_of(result["code"].as_str().unwrap()) });
        Call::new("PUT", path).json(&body).version(&result["version"])
    }

    /// Enters a value as it is in the order now.
    pub(crate) async fn enter(&self, d: &Tenantd, result: &Value, value: &str) -> Value {
        d.send(&Self::value_call(result, value), &self.technician)
            .await
            .expect(200)
    }

    pub(crate) async fn verify(&self, d: &Tenantd, result: &Value) -> Value {
        self.sign(d, "/api/v1/verifications", result).await
    }

    pub(crate) async fn release(&self, d: &Tenantd, result: &Value) -> Value {
        self.sign(d, "/api/v1/releases", result).await
    }

    async fn sign(&self, d: &Tenantd, path: &str, result: &Value) -> Value {
        let body = json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
        d.post(&self.supervisor, path, body).await.expect(200)["items"][0].clone()
    }
}

/// A prepared installation with an operator and a running `tenantd`.
pub(crate) struct World {
    pub(crate) server: Tenantd,
    pub(crate) operator: String,
    // Last, so that the process is gone before its databases go.
    pub(crate) space: Space,
}

/// The operator of these tests.
pub(crate) const OPERATOR: &str = "ops@platform.example";

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with some settings changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut HashMap<String, String>)) -> Self {
        let space = Space::new().await;
        let mut env = environment(&space);
        change(&mut env);
        prepare(&env).await;
        let server = Tenantd::start(&space, env).await;
        let operator = operator_token(&server).await;
        Self {
            server,
            operator,
            space,
        }
    }

    /// Provisions a laboratory through the operators' API and brings in its staff.
    pub(crate) async fn lab(&self, slug: &str) -> Lab {
        let id = provision(&self.server, &self.operator, slug).await;
        let d = &self.server;
        let admin = d.log_in(&Lab::email(slug, "admin"), None).await;
        let mut tokens = Vec::new();
        let people = [
            ("receptionist", "receptionist"),
            ("technician", "technician"),
            ("supervisor", "supervisor"),
            ("second-supervisor", "supervisor"),
        ];
        for (name, role) in people {
            let email = Lab::email(slug, name);
            let body = json!({ "email": email, "displayName": role, "role": role, "password": PASSWORD });
            d.post(&admin, "/api/v1/staff", body).await.expect(201);
            tokens.push(d.log_in(&email, Some(slug)).await);
        }
        let [receptionist, technician, supervisor, second_supervisor] = tokens.try_into().unwrap();
        Lab {
            slug: slug.to_owned(),
            id,
            admin,
            receptionist,
            technician,
            supervisor,
            second_supervisor,
        }
    }

    pub(crate) async fn stop(self) -> Option<i32> {
        let Self { server, space, .. } = self;
        let code = server.stop().await;
        drop(space);
        code
    }
}

pub(crate) async fn operator_token(d: &Tenantd) -> String {
    let body = json!({ "email": OPERATOR, "password": PASSWORD });
    let reply = d.post("", "/api/v1/operators/login", body).await.expect(200);
    reply["accessToken"].as_str().unwrap().to_owned()
}

/// The body that asks for a laboratory.
pub(crate) fn new_lab(slug: &str) -> Value {
    let admin =
        json!({ "email": Lab::email(slug, "admin"), "displayName": "Ada Admin", "password": PASSWORD });
    json!({ "slug": slug, "name": format!("{slug} & Söhne"), "timeZone": "Europe/Vienna", "admin": admin })
}

/// Asks for a laboratory, waits until it is active and gives its id.
pub(crate) async fn provision(d: &Tenantd, operator: &str, slug: &str) -> String {
    let asked = d.post(operator, "/api/v1/tenants", new_lab(slug)).await;
    let location = asked.header("location").to_owned();
    let id = asked.expect(202)["tenantId"].as_str().unwrap().to_owned();
    let operation = finished(d, operator, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    id
}

/// Follows an operation to its end.
pub(crate) async fn finished(d: &Tenantd, operator: &str, location: &str) -> Value {
    let last = std::cell::RefCell::new(Value::Null);
    testkit::eventually(location, LIMIT, async || {
        let reply = d.get(operator, location).await.expect(200);
        let over = ["succeeded", "failed"].contains(&reply["status"].as_str().unwrap_or(""));
        *last.borrow_mut() = reply;
        over
    })
    .await;
    last.into_inner()
}

impl World {
    /// Runs SQL on the registry, to bring about what cannot be brought about from outside.
    pub(crate) async fn registry_execute(&self, sql: &str) {
        connect(&self.space.registry)
            .await
            .batch_execute(sql)
            .await
            .unwrap();
    }

    /// A digest of every row of every table of a laboratory's database.
    pub(crate) async fn digest(&self, lab: &Lab) -> String {
        let database = format!("{}_tenant_{}", self.space.namespace.as_str(), lab.slug);
        let client = connect(&self.space.server.with_database(database)).await;
        let tables = client.query(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
            &[],
        );
        let mut digest = String::new();
        for row in tables.await.unwrap() {
            let table: String = row.get(0);
            let sql = format!(
                "SELECT md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) FROM {} AS t",
                model::quote_ident(&table)
            );
            let md5: String = client.query_one(&sql, &[]).await.unwrap().get(0);
            digest.push_str(&format!("{table} {md5}\n"));
        }
        assert!(
            digest.contains("patient ") && digest.contains("result "),
            "{digest}"
        );
        digest
    }
}

/// A connection of the test's own.
pub(crate) async fn connect(target: &pg::ConnectTarget) -> tokio_postgres::Client {
    pg::connect(target, "tenantry tests", LIMIT).await.unwrap()
}

/// Does what `tenantctl up` and `tenantctl operator create` do.
pub(crate) async fn prepare(env: &HashMap<String, String>) {
    let settings = settings::Settings::load(None, env.clone()).unwrap();
    let platform = platform::Platform::open(&settings).await.unwrap();
    platform.prepare(|_| {}).await.unwrap();
    let passwords = identity::Passwords::new(identity::PasswordOptions::default());
    let operator = registry::NewOperator {
        id: model::OperatorId::generate(),
        email: model::Email::parse(OPERATOR).unwrap(),
        display_name: "Olga Ops".to_owned(),
        password_hash: passwords.hash(&PASSWORD.into()).await.unwrap().into(),
    };
    let client = platform.registry.client().await.unwrap();
    registry::operator_insert(&client, &operator).await.unwrap();
    drop(client);
    platform.close().await.unwrap();
}

impl World {
    /// What identifies things of a laboratory: every UUID in its database, its patients' names and numbers, its barcodes
    /// and the codes of tests that it added itself.
    pub(crate) async fn identifiers(&self, lab: &Lab) -> Vec<String> {
        let database = format!("{}_tenant_{}", self.space.namespace.as_str(), lab.slug);
        let client = connect(&self.space.server.with_database(database)).await;
        let columns = client
            .query(
                "SELECT table_name::text, column_name::text FROM information_schema.columns
                 WHERE table_schema = 'public' AND (data_type = 'uuid' OR (table_name, column_name) IN
                     (('patient', 'family_name'), ('specimen', 'barcode')))
                   AND table_name NOT IN ('ref_range')",
                &[],
            )
            .await
            .unwrap();
        let mut found = std::collections::BTreeSet::new();
        for column in columns {
            let (table, column): (String, String) = (column.get(0), column.get(1));
            let (table, column) = (model::quote_ident(&table), model::quote_ident(&column));
            let sql = format!("SELECT DISTINCT {column}::text FROM {table} WHERE {column} IS NOT NULL");
            found.extend(
                client
                    .query(&sql, &[])
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| row.get::<_, String>(0)),
            );
        }
        let own = client
            .query(
                "SELECT code FROM test_def WHERE NOT standard AND code <> 'PB2'",
                &[],
            )
            .await
            .unwrap();
        found.extend(own.iter().map(|row| row.get::<_, String>(0)));
        // Names that the tests give to patients of both laboratories tell nothing.
        found.remove("Own");
        found.into_iter().collect()
    }
}
