//! A prepared installation.

use std::collections::HashMap;

use serde_json::{Value, json};
use testkit::Space;

use super::{LIMIT, Lab, PASSWORD, Reply, Tenantd, environment};

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
        Self::start_in(space, env).await
    }

    /// Starts with these settings and no others.
    pub(crate) async fn start_in(space: Space, env: HashMap<String, String>) -> Self {
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
            let body = json!({ "email": email, "displayName": role, "role": role });
            tokens.push(add_person(d, &admin, &body).await.1);
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

    /// Stops it and gives its whole log.
    pub(crate) async fn stop_and_log(self) -> String {
        let Self { server, space, .. } = self;
        let (_, log) = server.stop_and_log().await;
        drop(space);
        log
    }
}

pub(crate) async fn operator_token(d: &Tenantd) -> String {
    let body = json!({ "email": OPERATOR, "password": PASSWORD });
    let reply = d.post("", "/api/v1/operators/login", body).await.expect(200);
    reply["accessToken"].as_str().unwrap().to_owned()
}

/// Uses an invitation.
pub(crate) async fn accept(d: &Tenantd, token: &str, password: &str) -> Reply {
    let body = json!({ "token": token, "password": password });
    d.post("", "/api/v1/auth/invitations/accept", body).await
}

/// Adds a person, who sets the password of everybody by the link; gives the person and a token.
pub(crate) async fn add_person(d: &Tenantd, admin: &str, body: &Value) -> (Value, String) {
    let added = d.post(admin, "/api/v1/staff", body.clone()).await.expect(201);
    let invitation = added["invitation"]["token"].as_str().unwrap();
    let session = accept(d, invitation, PASSWORD).await.expect(200);
    let token = session["accessToken"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/staff/{}", added["id"].as_str().unwrap());
    (d.get(admin, &path).await.expect(200), token)
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
    let platform = bootstrap::Platform::open(&settings).await.unwrap();
    platform.prepare(|_| {}).await.unwrap();
    let passwords = identity::Passwords::new(identity::PasswordOptions::default());
    let chosen = identity::ChosenPassword::check(&PASSWORD.into(), &identity::PasswordContext::default());
    let chosen = chosen.unwrap();
    let operator = registry::NewOperator {
        id: model::OperatorId::generate(),
        email: model::Email::parse(OPERATOR).unwrap(),
        display_name: "Olga Ops".to_owned(),
        password_hash: passwords.hash(&chosen).await.unwrap().into(),
    };
    let client = platform.registry.client().await.unwrap();
    registry::operator_insert(&client, &operator).await.unwrap();
    drop(client);
    platform.close().await.unwrap();
}

impl World {
    /// Lets a laboratory's numbers begin where no other's do: they count from 1 in each, and equal ones tell
    /// nothing.
    pub(crate) async fn count_from_elsewhere(&self, lab: &Lab) {
        let database = format!("{}_tenant_{}", self.space.namespace.as_str(), lab.slug);
        let client = connect(&self.space.server.with_database(database)).await;
        let sql = "SELECT setval('patient_mrn_seq', 5000000);
             INSERT INTO accession_counter (day, last) SELECT current_date + d, 5000 FROM generate_series(-1, 1) AS d";
        client.batch_execute(sql).await.unwrap();
    }

    /// What identifies things of a laboratory: every UUID in its database, its people's names, numbers and
    /// addresses, its orders' numbers and barcodes, and the codes of tests that it added itself.
    pub(crate) async fn identifiers(&self, lab: &Lab) -> Vec<String> {
        let database = format!("{}_tenant_{}", self.space.namespace.as_str(), lab.slug);
        let client = connect(&self.space.server.with_database(database)).await;
        let columns = client
            .query(
                "SELECT table_name::text, column_name::text FROM information_schema.columns
                 WHERE table_schema = 'public' AND (data_type = 'uuid' OR (table_name, column_name) IN
                     (('patient', 'family_name'), ('patient', 'given_name'), ('patient', 'mrn'),
                      ('patient', 'national_id'), ('staff', 'email'), ('lab_order', 'accession_no'),
                      ('specimen', 'barcode')))
                   AND table_name NOT IN ('ref_range') AND column_name <> 'session_epoch'",
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
        for both in ["Own", "Ada", "Eve", "new@lab.example"] {
            found.remove(both);
        }
        found.into_iter().collect()
    }
}
