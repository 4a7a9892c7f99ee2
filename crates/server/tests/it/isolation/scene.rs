//! Two laboratories, and what stands in the first.

use serde_json::{Value, json};

use super::Probe;
use crate::support::{Call, LIMIT, Lab, Reply, World, add_person, by_code};

/// Two laboratories, and everything that is made in A as it is needed.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) a: Lab,
    pub(super) b: Lab,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let world = World::start().await;
        let (a, b) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
        world.count_from_elsewhere(&a).await;
        Self { world, a, b }
    }

    /// The operation that made A.
    pub(super) async fn operation(&self) -> Value {
        let path = format!("/api/v1/operations?tenantId={}&kind=provision", self.a.id);
        let list = self
            .world
            .server
            .get(&self.world.operator, &path)
            .await
            .expect(200);
        list["items"][0].clone()
    }

    /// Ends A's schedule of backups, and waits until no operation on A is under way: one that was cancelled
    /// may still be undone.
    pub(super) async fn idle(&self) {
        let (server, operator) = (&self.world.server, &self.world.operator);
        let path = format!("/api/v1/tenants/{}/backup-schedule", self.a.id);
        let ended = server.send(&Call::new("DELETE", path), operator).await;
        assert!([204, 404].contains(&ended.status), "{}", ended.text);
        let path = format!("/api/v1/operations?tenantId={}", self.a.id);
        testkit::eventually("A's operations to end", LIMIT, async || {
            let list = server.get(operator, &path).await.expect(200);
            let items = list["items"].as_array().unwrap();
            items.iter().all(|operation| !operation["finishedAt"].is_null())
        })
        .await;
    }

    /// A's first administrator.
    pub(super) async fn admin(&self) -> Value {
        let path = format!("/api/v1/tenants/{}/admins", self.a.id);
        let list = self.world.server.get(&self.world.operator, &path).await;
        list.expect(200)[0].clone()
    }

    /// An address that nothing is sent to but what is asked for.
    pub(super) fn new_webhook() -> Value {
        json!({ "url": "https://hooks.invalid/tenantry", "eventTypes": ["laboratory.removed"] })
    }

    pub(super) async fn webhook(&self) -> Value {
        let server = &self.world.server;
        let made = server.post(&self.world.operator, "/api/v1/webhooks", Self::new_webhook());
        made.await.expect(201)
    }

    pub(super) async fn delivery(&self) -> Value {
        let path = at("webhooks", &self.webhook().await, "/test");
        let asked = self.world.server.post(&self.world.operator, &path, json!({}));
        asked.await.expect(202)
    }

    pub(super) async fn suspend(&self) {
        let path = format!("/api/v1/tenants/{}/suspend", self.a.id);
        let asked = self
            .world
            .server
            .post(&self.world.operator, &path, json!({}))
            .await;
        asked.expect(200);
    }

    /// An archive of A.
    pub(super) async fn archive(&self) -> Value {
        let (server, operator) = (&self.world.server, &self.world.operator);
        let path = format!("/api/v1/tenants/{}/backups", self.a.id);
        let mut location = String::new();
        // A backup on A's schedule may be under way.
        testkit::eventually("the backup to be taken on", LIMIT, async || {
            let asked = server.post(operator, &path, json!({})).await;
            asked.header("location").clone_into(&mut location);
            asked.status == 202
        })
        .await;
        testkit::eventually("the backup", LIMIT, async || {
            let operation = server.get(operator, &location).await.expect(200);
            assert_ne!(operation["status"], "failed", "{operation}");
            operation["status"] == "succeeded"
        })
        .await;
        let path = format!("/api/v1/archives?tenantId={}", self.a.id);
        server.get(operator, &path).await.expect(200)["items"][0].clone()
    }

    pub(super) async fn schedule(&self) {
        let path = format!("/api/v1/tenants/{}/backup-schedule", self.a.id);
        let call = Call::new("PUT", path).json(&weekly());
        let set = self.world.server.send(&call, &self.world.operator).await;
        set.expect(200);
    }

    /// A's removal, archived and waiting, still to be cancelled.
    pub(super) async fn removal(&self) -> Value {
        let path = format!("/api/v1/tenants/{}/offboard", self.a.id);
        let body = json!({ "graceSeconds": 3600 });
        let asked = self.world.server.post(&self.world.operator, &path, body).await;
        let location = asked.header("location").to_owned();
        let id = asked.expect(202)["operationId"].clone();
        // Until then every session in the database is ended, also that of a test that looks.
        testkit::eventually("the grace period", LIMIT, async || {
            let operation = self.world.server.get(&self.world.operator, &location).await;
            operation.expect(200)["waitingUntil"].is_string()
        })
        .await;
        json!({ "id": id })
    }

    /// Waits until A is served again.
    pub(super) async fn serves(&self) {
        testkit::eventually("A serves", LIMIT, async || {
            let reply = self.world.server.get(&self.a.admin, "/api/v1/profile").await;
            reply.status == 200
        })
        .await;
    }

    pub(super) async fn send(&self, lab: &Lab, probe: &Probe) -> Reply {
        self.world.server.send(&probe.call, (probe.role)(lab)).await
    }

    pub(super) async fn patient(&self) -> Value {
        self.a.patient(&self.world.server).await
    }

    pub(super) async fn order(&self) -> Value {
        let patient = self.patient().await;
        self.a.order(&self.world.server, &patient["id"], &["K"]).await
    }

    /// An order whose potassium stands at a status.
    pub(super) async fn result(&self, status: &str) -> (Value, Value) {
        let d = &self.world.server;
        let (_, order) = self.a.received_order(d, &["K"]).await;
        let mut result = by_code(&order, "K").clone();
        if status == "pending" {
            return (order, result);
        }
        result = self
            .a
            .enter(d, &result, if status == "critical" { "6.9" } else { "4.1" })
            .await;
        if ["entered", "critical"].contains(&status) {
            return (order, result);
        }
        result = self.fresh(&self.a.verify(d, &result).await).await;
        if status == "verified" {
            return (order, result);
        }
        assert_eq!(status, "released");
        result = self.fresh(&self.a.release(d, &result).await).await;
        (order, result)
    }

    pub(super) async fn fresh(&self, result: &Value) -> Value {
        self.world
            .server
            .get(&self.a.technician, &at("results", result, ""))
            .await
            .expect(200)
    }

    /// A test that only A has.
    pub(super) async fn own_test(&self) -> String {
        let code = format!("A{}", &uuid::Uuid::now_v7().simple().to_string()[20..]).to_uppercase();
        let body = json!({ "code": code, "name": "Lead in blood", "section": "toxicology", "specimenType": "EDTA blood",
                           "valueType": "quantity", "unit": "ug/dL", "decimals": 2 });
        self.world
            .server
            .post(&self.a.admin, "/api/v1/tests", body)
            .await
            .expect(201);
        code
    }

    pub(super) async fn amendment(&self) -> Value {
        let (_, result) = self.result("released").await;
        let call = post(
            at("results", &result, "/amendments"),
            &json!({ "value": "4.2", "reason": "mixed up" }),
        );
        let amended = self
            .world
            .server
            .send(&call.version(&result["version"]), &self.a.supervisor)
            .await
            .expect(200);
        amended["amendment"].clone()
    }

    pub(super) async fn import(&self) -> Value {
        let (order, _) = self.result("pending").await;
        let call = import_of(&order);
        self.world
            .server
            .send(&call, &self.a.technician)
            .await
            .expect(202)
    }

    pub(super) async fn person(&self) -> Value {
        let email = format!("{}@acme-lab.example", uuid::Uuid::now_v7().simple());
        let body = json!({ "email": email, "displayName": "Nina", "role": "technician" });
        add_person(&self.world.server, &self.a.admin, &body).await.0
    }
}

pub(super) fn weekly() -> Value {
    json!({ "everySeconds": 604_800, "keepLast": 4 })
}

pub(super) fn at(resource: &str, record: &Value, rest: &str) -> String {
    format!(
        "/api/v1/{resource}/{}{rest}",
        record["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id in {record}"))
    )
}

pub(super) fn import_of(order: &Value) -> Call {
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let csv = format!("barcode,code,value,unit,instrument\n{barcode},K,4.2,mmol/L,X1\n");
    Call::new("POST", "/api/v1/imports").body("text/csv", csv)
}

pub(super) fn sign(path: &str, result: &Value) -> Call {
    let items = json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
    Call::new("POST", path).json(&items)
}

pub(super) fn post(path: String, body: &Value) -> Call {
    Call::new("POST", path).json(body)
}

pub(super) fn reason() -> Value {
    json!({ "reason": "a good reason" })
}
