//! A laboratory with its people, and what they do every day.

use serde_json::{Value, json};

use super::{Call, Tenantd};

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

    /// Registers a patient of names and a number that nobody else has.
    pub(crate) async fn patient(&self, d: &Tenantd) -> Value {
        let own = uuid::Uuid::now_v7().simple();
        let body = json!({ "familyName": format!("P{own}"), "givenName": format!("G{own}"), "sex": "F",
                           "nationalId": format!("N{own}"), "birthDate": "1980-04-01" });
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
        let body = json!({ "value": value, "unit": result["unit"] });
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
