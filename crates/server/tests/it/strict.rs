//! Requests are read strictly: one spelling of each time, objects by name, one encoding; and whatever is
//! refused is named.

use std::{fmt::Write as _, time::Duration};

use futures_util::future::select_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Call, LIMIT, Tenantd, World, accept, by_code};

fn patient() -> Value {
    json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" })
}

#[track_caller]
fn blamed(reply: Value, pointer: &str, word: &str) {
    let error = &reply["errors"][0];
    assert_eq!(error["pointer"], pointer, "{reply}");
    assert!(error["detail"].as_str().unwrap().contains(word), "{reply}");
}

#[tokio::test]
async fn an_object_is_never_read_from_an_array_and_no_name_is_given_twice() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let id = "0190a5b0-0000-7000-8000-000000000001";
    let text = format!(r#"{{"items": [["{id}", 2]]}}"#);
    let call = Call::new("POST", "/api/v1/verifications").body("application/json", text);
    blamed(
        d.send(&call, &lab.supervisor).await.expect(422),
        "items[0]",
        "object",
    );
    let admin = json!(["ada@new-lab.example", "Ada", null]);
    let body = json!({ "slug": "new-lab", "name": "New", "admin": admin });
    let reply = d.post(&world.operator, "/api/v1/tenants", body).await;
    blamed(reply.expect(422), "admin", "object");
    for (path, token, body, pointer) in [
        (
            "/api/v1/patients",
            &lab.receptionist,
            r#"{"familyName": "A", "familyName": "B", "givenName": "C", "sex": "F", "birthDate": "1967-11-07"}"#.to_owned(),
            "familyName",
        ),
        (
            "/api/v1/verifications",
            &lab.supervisor,
            format!(r#"{{"items": [{{"id": "{id}", "version": 1, "version": 2}}]}}"#),
            "items[0].version",
        ),
    ] {
        let call = Call::new("POST", path).body("application/json", body);
        blamed(d.send(&call, token).await.expect(422), pointer, "twice");
    }
    // Rows of an import are objects, too.
    let (_, order) = lab.received_order(d, &["K"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!(
        "[\"{barcode}\", \"K\", null, \"4.1\", null, \"mmol/L\"]\n{{\"barcode\": \"{barcode}\", \"code\": \"K\", \"value\": \"4.1\", \
         \"value\": \"5.1\", \"unit\": \"mmol/L\"}}\n"
    );
    let call = Call::new("POST", "/api/v1/imports").body("application/x-ndjson", file);
    let batch = d.send(&call, &lab.technician).await.expect(202);
    assert_eq!(
        (&batch["rowsOk"], &batch["rowsRejected"]),
        (&json!(0), &json!(2)),
        "{batch}"
    );
    let path = format!("/api/v1/imports/{}/errors", batch["id"].as_str().unwrap());
    let errors = d.get(&lab.technician, &path).await.expect(200);
    for (line, word) in [(0, "object"), (1, "value: it is given twice")] {
        let reason = errors["items"][line]["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{errors}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_time_is_rfc_3339_and_a_day_is_iso_8601() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let order = lab.order(d, &lab.patient(d).await["id"], &["K"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let collect = format!("/api/v1/specimens/{barcode}/collect");
    for at in [
        "2026-01-31T08:00:00+25:00",
        "2026-01-31T08:00:60Z",
        "2026-01-31T08:00:00-05:00[America/New_York]",
        "2026-01-31T08:00:00Z[u-ca=japanese]",
        "2026-01-31 08:00:00Z",
        "20260131T080000Z",
        "2026-01-31",
    ] {
        let reply = d.post(&lab.receptionist, &collect, json!({ "at": at })).await;
        blamed(reply.expect(422), "at", "for example 20");
    }
    for day in [
        "19671107",
        "1967-11-07[u-ca=japanese]",
        "1967-11-07T00:00:00Z",
        "1967-11-7",
        "1967-311",
    ] {
        let mut body = patient();
        body["birthDate"] = json!(day);
        let reply = d.post(&lab.receptionist, "/api/v1/patients", body).await;
        blamed(reply.expect(422), "birthDate", "for example 2026-01-31");
        let url = reqwest::Url::parse_with_params("http://x/", [("birthDate", day)]).unwrap();
        let path = format!("/api/v1/patients?{}", url.query().unwrap());
        blamed(
            d.get(&lab.receptionist, &path).await.expect(400),
            "birthDate",
            "for example 2026-01-31",
        );
    }
    lab.draw(d, &order).await;
    let mut file = "barcode,code,value,unit,resultedAt\n".to_owned();
    writeln!(file, "{barcode},K,4.1,mmol/L,2026-01-31T08:00:00+25:00").unwrap();
    let call = Call::new("POST", "/api/v1/imports").body("text/csv", file);
    let batch = d.send(&call, &lab.technician).await.expect(202);
    assert_eq!(batch["rowsRejected"], 1, "{batch}");
    world.stop().await;
}

#[tokio::test]
async fn a_body_is_utf_8_or_refused_whatever_its_format() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let csv = "barcode,code,value\nB,K,1\n";
    let ndjson = r#"{"barcode": "B", "code": "K", "value": "1"}"#;
    for charset in ["iso-8859-1", "\"windows-1252\"", "UTF-16"] {
        for (path, media_type, body) in [
            ("/api/v1/patients", "application/json", patient().to_string()),
            ("/api/v1/imports", "text/csv", csv.to_owned()),
            ("/api/v1/imports", "application/x-ndjson", ndjson.to_owned()),
        ] {
            let content_type = format!("{media_type}; charset={charset}");
            let call = Call::new("POST", path).body(&content_type, body);
            let reply = d.send(&call, &lab.admin).await;
            reply.refused(415, "unsupported-media-type");
            assert!(
                reply.json["detail"].as_str().unwrap().contains("UTF-8"),
                "{}",
                reply.text
            );
        }
    }
    for content_type in [
        "application/json;charset=\"utf-8\"",
        "application/json; Charset=UTF8",
        "application/json",
    ] {
        let call = Call::new("POST", "/api/v1/patients").body(content_type, patient().to_string());
        d.send(&call, &lab.receptionist).await.expect(201);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_refused_item_is_named_by_its_place() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K", "GLU"]).await;
    let entered = lab.enter(d, by_code(&order, "K"), "4.1").await;
    let glucose = by_code(&order, "GLU");
    let item = |result: &Value| json!({ "id": result["id"], "version": result["version"] });
    let nobody = json!({ "id": "0190a5b0-0000-7000-8000-000000000001", "version": 1 });
    let sign = async |items: Value| {
        d.post(
            &lab.supervisor,
            "/api/v1/verifications",
            json!({ "items": items }),
        )
        .await
    };

    let missing = sign(json!([item(&entered), nobody])).await.expect(404);
    blamed(missing, "items[1].id", "there is no result");
    let twice = sign(json!([item(&entered), item(&entered)])).await.expect(422);
    blamed(twice, "items[1].id", "twice");
    let pending = sign(json!([item(&entered), item(glucose)])).await.expect(409);
    assert_eq!(pending["errors"][0]["id"], glucose["id"], "{pending}");
    blamed(pending, "items[1]", "pending");

    let add = |tests: Value| json!({ "tests": tests });
    let path = format!("/api/v1/orders/{}/tests", order["id"].as_str().unwrap());
    let there = d
        .post(&lab.receptionist, &path, add(json!(["CREA", "K"])))
        .await
        .expect(409);
    blamed(there, "tests[1]", "already");
    let mut new = json!({ "patientId": nobody["id"], "tests": ["K"] });
    let reply = d.post(&lab.receptionist, "/api/v1/orders", new.clone()).await;
    blamed(reply.expect(404), "patientId", "there is no patient");
    new["patientId"] = order["patientId"].clone();
    new["placerOrderNo"] = json!("P-1");
    d.post(&lab.receptionist, "/api/v1/orders", new.clone())
        .await
        .expect(201);
    let again = d.post(&lab.receptionist, "/api/v1/orders", new).await;
    blamed(again.expect(409), "placerOrderNo", "already");
    world.stop().await;
}

#[tokio::test]
async fn a_new_password_is_refused_by_the_name_of_its_field() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for new in ["x".repeat(129), "short".to_owned()] {
        let body = json!({ "currentPassword": crate::support::PASSWORD, "newPassword": new });
        let reply = d.post(&lab.technician, "/api/v1/me/password", body).await;
        reply.refused(422, "weak-password");
        blamed(reply.json, "newPassword", "characters");
    }
    let same =
        json!({ "currentPassword": crate::support::PASSWORD, "newPassword": crate::support::PASSWORD });
    let reply = d.post(&lab.technician, "/api/v1/me/password", same).await;
    blamed(reply.expect(422), "newPassword", "another");
    let reply = accept(d, "no invitation", &"x".repeat(129)).await;
    blamed(reply.expect(422), "password", "128");
    let mut body = crate::support::new_lab("new-lab");
    body["admin"]["password"] = json!("aaaaaaaaaaaaaaaa");
    let reply = d.post(&world.operator, "/api/v1/tenants", body).await;
    blamed(reply.expect(422), "admin.password", "different");
    world.stop().await;
}

#[tokio::test]
async fn the_worklist_takes_the_words_that_its_description_lists() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let document = world.server.get("", "/openapi.json").await.expect(200);
    let parameters = document["paths"]["/api/v1/worklist"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let status = parameters
        .iter()
        .find(|parameter| parameter["name"] == "status")
        .unwrap();
    let words = status["schema"]["enum"].as_array().unwrap();
    assert_eq!(words, &["pending", "entered", "verified"].map(|word| json!(word)));
    for word in words {
        let path = format!("/api/v1/worklist?status={}", word.as_str().unwrap());
        world.server.get(&lab.technician, &path).await.expect(200);
    }
    let refused = world
        .server
        .get(&lab.technician, "/api/v1/worklist?status=released")
        .await;
    blamed(refused.expect(400), "status", "pending, entered, verified");
    world.stop().await;
}

#[tokio::test]
async fn files_are_described_as_what_they_are() {
    let world = World::start().await;
    let document = world.server.get("", "/openapi.json").await.expect(200);
    let resolved = |schema: &Value| match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap().clone(),
        None => schema.clone(),
    };
    for path in ["/api/v1/exports/archive", "/api/v1/tenants/{id}/export"] {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/zip"];
        let schema = resolved(&content["schema"]);
        assert_eq!(
            (&schema["type"], &schema["format"]),
            (&json!("string"), &json!("binary")),
            "{path}"
        );
    }
    let content = &document["paths"]["/api/v1/imports"]["post"]["requestBody"]["content"];
    for media_type in ["text/csv", "application/x-ndjson"] {
        let schema = resolved(&content[media_type]["schema"]);
        assert_eq!(schema["contentMediaType"], media_type, "{schema}");
        let description = schema["description"].as_str().unwrap();
        for word in ["ImportRow", "50000 rows", "16777216 bytes"] {
            assert!(description.contains(word), "{word}: {description}");
        }
    }
    // The columns are the fields of a row, and no others.
    let lab = world.lab("acme-lab").await;
    let row = &document["components"]["schemas"]["ImportRow"];
    assert_eq!(row["additionalProperties"], false);
    let columns: Vec<&str> = row["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let import = async |header: String| {
        let file = format!("{header}\n{}\n", "x,".repeat(header.matches(',').count()));
        let call = Call::new("POST", "/api/v1/imports?dryRun=true").body("text/csv", file);
        world.server.send(&call, &lab.technician).await
    };
    import(columns.join(",")).await.expect(202);
    import(format!("{},colour", columns.join(","))).await.expect(422);
    world.stop().await;
}

/// Announces a file of so many bytes, of which none comes.
async fn announced(d: &Tenantd, token: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(d.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "POST /api/v1/imports HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\nauthorization: Bearer {token}\r\n\
         content-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn the_bodies_of_all_connections_share_one_budget_of_memory() {
    const FILE: usize = 16 * 1024 * 1024;
    let world = World::start_with(|env| {
        env.insert(
            "TENANTRY_HTTP_BODIES_MAX_BYTES".to_owned(),
            (2 * FILE).to_string(),
        );
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(announced(d, &lab.technician, FILE).await);
    }
    // Two of them have their part, whichever came first; the third waits for it in vain.
    let answers = streams.iter_mut().map(|stream| {
        Box::pin(async {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        })
    });
    let (answer, _, held) = tokio::time::timeout(LIMIT, select_all(answers))
        .await
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("retry-after: 1") && answer.contains("\"code\":\"busy\""),
        "{answer}"
    );
    // Daily work goes on meanwhile: what is small needs nothing of the budget.
    d.post(&lab.receptionist, "/api/v1/patients", patient())
        .await
        .expect(201);
    drop(held);
    drop(streams);
    // What was held comes back when its connection has gone.
    let mut file = b"barcode,code,value\nB,K,1\n".to_vec();
    file.resize(FILE, b'\n');
    let call = Call::new("POST", "/api/v1/imports").body("text/csv", file);
    tokio::time::timeout(Duration::from_secs(60), d.send(&call, &lab.technician))
        .await
        .expect("an answer")
        .expect(202);
    world.stop().await;
}
