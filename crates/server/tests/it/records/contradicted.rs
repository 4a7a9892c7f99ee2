//! A value and the rows of files that say something else: they are shown with it and hold it back until
//! somebody has looked.

use serde_json::{Value, json};

use super::{conflict, deliver, set_aside};
use crate::support::{Call, Lab, Tenantd, World, by_code, connect};

const HEAD: &str = "barcode,code,value,comparator,unit\n";

/// One result of potassium, 4.0 mmol/L in most of what follows; the critical limits are 2.5 and 6.5.
struct Potassium<'a> {
    d: &'a Tenantd,
    lab: &'a Lab,
    order: Value,
    barcode: String,
}

impl<'a> Potassium<'a> {
    async fn ordered(d: &'a Tenantd, lab: &'a Lab) -> Self {
        let patient = lab.patient(d).await;
        let order = lab.order(d, &patient["id"], &["K"]).await;
        let barcode = order["specimens"][0]["barcode"].as_str().unwrap().to_owned();
        Self {
            d,
            lab,
            order,
            barcode,
        }
    }

    async fn received(d: &'a Tenantd, lab: &'a Lab) -> Self {
        let own = Self::ordered(d, lab).await;
        lab.draw(d, &own.order).await;
        own
    }

    async fn entered(d: &'a Tenantd, lab: &'a Lab) -> Self {
        let own = Self::received(d, lab).await;
        lab.enter(d, &own.now().await, "4.0").await;
        own
    }

    async fn released(d: &'a Tenantd, lab: &'a Lab) -> Self {
        let own = Self::entered(d, lab).await;
        let verified = lab.verify(d, &own.now().await).await;
        lab.release(d, &verified).await;
        own
    }

    async fn now(&self) -> Value {
        let path = format!("/api/v1/orders/{}", self.order["id"].as_str().unwrap());
        let order = self.d.get(&self.lab.technician, &path).await.expect(200);
        by_code(&order, "K").clone()
    }

    /// Delivers a file of rows that are given as value, comparator and unit.
    async fn file(&self, rows: &[&str]) -> Value {
        let rows = rows.iter().map(|row| format!("{},K,{row}\n", self.barcode));
        deliver(self.d, self.lab, &(HEAD.to_owned() + &rows.collect::<String>())).await
    }

    async fn replace(&self, value: &str, comment: Option<&str>) {
        let result = self.now().await;
        let path = format!("/api/v1/results/{}/value", result["id"].as_str().unwrap());
        let body = json!({ "value": value, "unit": "mmol/L", "comment": comment, "reason": "checked" });
        let call = Call::new("PUT", path).json(&body).version(&result["version"]);
        self.d.send(&call, &self.lab.technician).await.expect(200);
    }

    async fn repeat(&self) {
        let result = self.now().await;
        let path = format!("/api/v1/results/{}/repeat", result["id"].as_str().unwrap());
        let call = Call::new("POST", path)
            .json(&json!({ "reason": "two values" }))
            .version(&result["version"]);
        self.d.send(&call, &self.lab.technician).await.expect(200);
    }

    /// The lines of files that contradict the present value.
    async fn contradicted_by(&self) -> Vec<i64> {
        let now = self.now().await;
        let rows = now["contradictedBy"].as_array().unwrap().iter();
        rows.map(|row| row["line"].as_i64().unwrap()).collect()
    }

    /// Verifies the value if need be, and gives the code that the release is refused with, if it is.
    async fn release(&self) -> Option<String> {
        let mut result = self.now().await;
        if result["status"] == "entered" {
            result = self.lab.verify(self.d, &result).await;
        }
        let body = json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
        let reply = self.d.post(&self.lab.supervisor, "/api/v1/releases", body).await;
        if reply.status == 200 {
            return None;
        }
        reply.refused(409, "items-refused");
        Some(reply.json["errors"][0]["code"].as_str().unwrap().to_owned())
    }

    async fn propose(&self, change: Value) -> Value {
        let result = self.now().await;
        let path = format!("/api/v1/results/{}/amendments", result["id"].as_str().unwrap());
        let call = Call::new("POST", path).json(&change).version(&result["version"]);
        self.d.send(&call, &self.lab.supervisor).await.expect(200).clone()
    }
}

#[tokio::test]
async fn a_row_with_a_fault_of_its_own_is_never_taken_for_equal_and_holds_the_value_back() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for verified in [false, true] {
        for (row, code) in [
            (">9.0,,mmol/L", "bad_value"),
            ("\"9,0\",,mmol/L", "bad_value"),
            ("9.0,~,mmol/L", "bad_value"),
            (",>,mmol/L", "bad_value"),
            ("9.0,,mEq/L", "wrong_unit"),
            ("9.0,,", "wrong_unit"),
            ("4.0,>,mmol/L", "conflict"),
            ("9.0,,mmol/L", "conflict"),
        ] {
            let k = Potassium::entered(d, &lab).await;
            if verified {
                lab.verify(d, &k.now().await).await;
            }
            let batch = k.file(&[row]).await;
            assert_eq!(set_aside(d, &lab, &batch).await, [(2, code.to_owned())], "{row}");
            assert_eq!(k.contradicted_by().await, [2], "{row}");
            assert_eq!(k.release().await.as_deref(), Some("contradicted"), "{row}");
        }
        let k = Potassium::entered(d, &lab).await;
        let mut code = "already_entered";
        if verified {
            lab.verify(d, &k.now().await).await;
            code = "already_final";
        }
        let batch = k.file(&["4.00,,mmol/L"]).await;
        assert_eq!(set_aside(d, &lab, &batch).await, [(2, code.to_owned())]);
        assert_eq!(k.release().await, None, "the same value");
    }
    // The row that can be read lands, and the other one of the same file speaks against it.
    for (rows, other) in [
        (["4.0,,mmol/L", ">9.0,,mmol/L"], 3),
        (["9000,,umol/L", "4.0,,mmol/L"], 2),
    ] {
        let k = Potassium::received(d, &lab).await;
        k.file(&rows).await;
        assert_eq!(k.now().await["value"], "4.0", "{rows:?}");
        assert_eq!(k.contradicted_by().await, [other], "{rows:?}");
        assert_eq!(k.release().await.as_deref(), Some("contradicted"), "{rows:?}");
    }
    // Nor is a file's value free of what an earlier file could not say; whoever types it in has that file at
    // hand.
    for (landed, by) in [(true, vec![2]), (false, vec![])] {
        let k = Potassium::received(d, &lab).await;
        k.file(&[">9.0,,mmol/L"]).await;
        if landed {
            k.file(&["4.0,,mmol/L"]).await;
        } else {
            lab.enter(d, &k.now().await, "4.0").await;
        }
        assert_eq!(k.contradicted_by().await, by, "{landed}");
        k.file(&[">9.0,,mmol/L"]).await;
        assert_eq!(k.contradicted_by().await, [2], "delivered again, {landed}");
    }
    // A row that agreed contradicts the value that replaces the one with which it agreed.
    let k = Potassium::entered(d, &lab).await;
    k.file(&["4.0,,mmol/L"]).await;
    assert_eq!(k.contradicted_by().await, [0_i64; 0]);
    k.replace("4.1", None).await;
    assert_eq!(k.contradicted_by().await, [2]);
    world.stop().await;
}

#[tokio::test]
async fn a_value_stays_contradicted_until_it_is_repeated_or_the_one_of_the_row() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let k = Potassium::entered(d, &lab).await;
    let batch = k.file(&["4.9,,mmol/L"]).await;
    for (value, comment, by) in [
        ("4.0", None, vec![2]),
        ("4.0", Some("the same"), vec![2]),
        ("4.2", None, vec![2]),
        ("4.9", None, vec![]),
        ("4.2", None, vec![2]),
    ] {
        k.replace(value, comment).await;
        assert_eq!(k.contradicted_by().await, by, "{value} {comment:?}");
    }
    assert_eq!(k.release().await.as_deref(), Some("contradicted"));
    let result = k.now().await;
    let rows = json!([{ "importId": batch["id"], "line": 2, "value": "4.9", "comparator": null }]);
    assert_eq!(result["contradictedBy"], rows, "{result}");
    k.repeat().await;
    lab.enter(d, &k.now().await, "4.2").await;
    assert_eq!(k.contradicted_by().await, [0_i64; 0], "another measurement");
    assert_eq!(k.release().await, None);

    let k = Potassium::entered(d, &lab).await;
    k.file(&["4.9,,mmol/L"]).await;
    k.repeat().await;
    lab.enter(d, &k.now().await, "4.2").await;
    assert_eq!(k.contradicted_by().await, [0_i64; 0]);
    k.file(&["4.9,,mmol/L"]).await;
    assert_eq!(
        k.contradicted_by().await,
        [2],
        "the same file, of the new measurement"
    );
    assert_eq!(k.release().await.as_deref(), Some("contradicted"));
    world.stop().await;
}

#[tokio::test]
async fn an_amendment_takes_no_contradiction_away_and_is_confirmed_by_who_verifies() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (change, early, by) in [
        (json!({ "comment": "only a comment" }), false, vec![2]),
        (json!({ "value": "4.2" }), true, vec![2]),
        (json!({ "value": "4.9" }), true, vec![]),
    ] {
        let k = Potassium::released(d, &lab).await;
        let mut with_reason = change.clone();
        with_reason["reason"] = json!("the control was out");
        let mut proposed = Value::Null;
        if early {
            proposed = k.propose(with_reason.clone()).await;
        }
        k.file(&["4.9,,mmol/L"]).await;
        if !early {
            proposed = k.propose(with_reason).await;
            assert_eq!(
                proposed["amendment"]["contradictedBy"][0]["line"], 2,
                "{proposed}"
            );
        }
        let path = format!(
            "/api/v1/amendments/{}/verify",
            proposed["amendment"]["id"].as_str().unwrap()
        );
        let confirmation = if by.is_empty() {
            d.post(&lab.second_supervisor, &path, json!({})).await.expect(200);
            Value::Null
        } else {
            let bare = d.post(&lab.second_supervisor, &path, json!({})).await;
            conflict(&bare, "contradicted");
            let body = json!({ "confirmConflict": "the tube of the file was haemolysed" });
            d.post(&lab.second_supervisor, &path, body.clone())
                .await
                .expect(200);
            body["confirmConflict"].clone()
        };
        let now = k.now().await;
        assert_eq!(
            (k.contradicted_by().await, &now["conflictConfirmation"]),
            (by, &confirmation),
            "{change}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn what_files_said_before_there_was_a_value_contradicts_the_one_that_is_typed_in() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let two = Potassium::received(d, &lab).await;
    let batch = two.file(&["4.0,,mmol/L", "9.0,,mmol/L"]).await;
    let codes = set_aside(d, &lab, &batch).await;
    assert!(codes.iter().all(|(_, code)| code == "contradiction"), "{codes:?}");
    assert_eq!(two.contradicted_by().await, [0_i64; 0], "there is no value yet");
    lab.enter(d, &two.now().await, "4.0").await;
    assert_eq!(two.contradicted_by().await, [3]);
    assert_eq!(two.release().await.as_deref(), Some("contradicted"));

    for (typed, by) in [("4.0", vec![2]), ("4.9", vec![])] {
        let early = Potassium::ordered(d, &lab).await;
        let batch = early.file(&["4.9,,mmol/L"]).await;
        assert_eq!(set_aside(d, &lab, &batch).await, [(2, "not_received".to_owned())]);
        lab.draw(d, &early.order).await;
        lab.enter(d, &early.now().await, typed).await;
        assert_eq!(early.contradicted_by().await, by, "{typed}");
        let held = (!by.is_empty()).then_some("contradicted");
        assert_eq!(early.release().await.as_deref(), held, "{typed}");
    }
    // The row itself lands once the specimen is there.
    let early = Potassium::ordered(d, &lab).await;
    let batch = early.file(&["4.9,,mmol/L"]).await;
    lab.draw(d, &early.order).await;
    let path = format!("/api/v1/imports/{}/retry", batch["id"].as_str().unwrap());
    let again = d.post(&lab.technician, &path, json!({})).await.expect(200);
    assert_eq!(again["rowsOk"], 1, "{again}");
    assert_eq!(early.release().await, None);
    world.stop().await;
}

#[tokio::test]
async fn sql_neither_releases_nor_amends_a_contradicted_value() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    let supervisor = "(SELECT id FROM staff WHERE role = 'supervisor' ORDER BY id LIMIT 1)";
    let other = "(SELECT id FROM staff WHERE role = 'supervisor' ORDER BY id DESC LIMIT 1)";
    let id = |result: &Value| result["id"].as_str().unwrap().to_owned();
    let entered = Potassium::entered(d, &lab).await;
    entered.file(&["4.9,,mmol/L"]).await;
    let released = Potassium::released(d, &lab).await;
    released.file(&["4.9,,mmol/L"]).await;
    let (waiting, out) = (id(&entered.now().await), id(&released.now().await));
    let release = format!(
        "UPDATE result SET attempt = 9, comment = 'x', change_reason = 'x' WHERE id = '{waiting}';
         UPDATE result SET status = 'verified', verified_by = {supervisor} WHERE id = '{waiting}';
         UPDATE result SET status = 'released', released_by = verified_by WHERE id = '{waiting}';"
    );
    let amend = format!(
        "INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, comment, reason, entered_by, conflict_confirmation)
           SELECT gen_random_uuid(), id, rev, 'amended', value_num, 'x', 'x', {supervisor}, 'x' FROM result WHERE id = '{out}';
         UPDATE result_amendment SET status = 'verified', verified_by = {other} WHERE result_id = '{out}';"
    );
    for sql in [release, amend] {
        let refused = client.batch_execute(&sql).await.unwrap_err();
        let code = refused.code().map(|code| code.code());
        assert_eq!(code, Some("LAB19"), "{refused:?}: {sql}");
    }
    world.stop().await;
}
