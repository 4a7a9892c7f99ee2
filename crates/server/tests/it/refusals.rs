//! Bad input and bad weather: each has its own problem type and status, and loses nothing.

use serde_json::{Value, json};

use crate::support::{Call, LIMIT, Lab, Tenantd, World, environment};

#[tokio::test]
async fn every_bad_input_has_a_problem_of_its_own() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let (d, ops) = (&world.server, &world.operator);
    let post = |path: &str| Call::new("POST", path);
    let patients = || post("/api/v1/patients");
    let nobody = "01890000-0000-7000-8000-000000000000";
    let table = [
        // (what, who, call, status, code)
        (
            "no token",
            "",
            Call::new("GET", "/api/v1/patients"),
            401,
            "token-missing",
        ),
        (
            "not a token",
            "junk",
            Call::new("GET", "/api/v1/patients"),
            401,
            "token-invalid",
        ),
        (
            "empty body",
            &lab.receptionist,
            patients().body("application/json", ""),
            400,
            "body-empty",
        ),
        (
            "blank body",
            &lab.receptionist,
            patients().body("application/json", " \n"),
            400,
            "body-empty",
        ),
        (
            "cut off",
            &lab.receptionist,
            patients().body("application/json", "{\"sex\": "),
            400,
            "malformed-json",
        ),
        (
            "not UTF-8",
            &lab.receptionist,
            patients().body("application/json", b"{\"familyName\": \"\xff\"}".to_vec()),
            400,
            "malformed-json",
        ),
        (
            "deep nesting",
            &lab.receptionist,
            patients().body("application/json", "[".repeat(100_000)),
            422,
            "invalid",
        ),
        (
            "wrong type",
            &lab.receptionist,
            patients().body("text/plain", "{}"),
            415,
            "unsupported-media-type",
        ),
        (
            "unknown field",
            &lab.receptionist,
            patients().json(&json!({ "familyNam": "x" })),
            422,
            "unknown-field",
        ),
        (
            "missing field",
            &lab.receptionist,
            patients().json(&json!({ "familyName": "x" })),
            422,
            "invalid",
        ),
        (
            "bad date",
            &lab.receptionist,
            patients().json(&patient(&json!({ "birthDate": "1980-13-41" }))),
            422,
            "invalid",
        ),
        (
            "blank name",
            &lab.receptionist,
            patients().json(&patient(&json!({ "familyName": "  " }))),
            422,
            "invalid",
        ),
        (
            "NUL in a name",
            &lab.receptionist,
            patients().json(&patient(&json!({ "familyName": "a\0b" }))),
            422,
            "invalid",
        ),
        (
            "NUL in a query",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients?q=a%00b"),
            422,
            "invalid",
        ),
        (
            "id that is none",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients/7"),
            404,
            "not-found",
        ),
        (
            "SQL as id",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients/1'%20OR%20'1'='1"),
            404,
            "not-found",
        ),
        (
            "unknown id",
            &lab.receptionist,
            Call::new("GET", format!("/api/v1/patients/{nobody}")),
            404,
            "not-found",
        ),
        (
            "unknown parameter",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients?nope=1"),
            400,
            "bad-query",
        ),
        (
            "date before every calendar",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients?birthDate=0001-01-01"),
            422,
            "invalid",
        ),
        (
            "limit too large",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients?limit=100000"),
            422,
            "invalid",
        ),
        (
            "cursor that is none",
            &lab.receptionist,
            Call::new("GET", "/api/v1/patients?after=zzz"),
            422,
            "invalid",
        ),
        (
            "unknown test",
            &lab.receptionist,
            post("/api/v1/orders").json(&json!({
            "patientId": nobody, "priority": "routine", "requester": "x", "tests": ["NO-SUCH"] })),
            404,
            "not-found",
        ),
        (
            "role may not",
            &lab.receptionist,
            Call::new("GET", "/api/v1/worklist"),
            403,
            "forbidden",
        ),
        (
            "operator inside",
            ops,
            Call::new("GET", "/api/v1/patients"),
            403,
            "wrong-audience",
        ),
        (
            "staff outside",
            &lab.admin,
            Call::new("GET", "/api/v1/tenants"),
            403,
            "wrong-audience",
        ),
        (
            "no such route",
            "",
            Call::new("GET", "/api/v1/nope"),
            404,
            "no-such-route",
        ),
        (
            "no such page",
            "",
            Call::new("GET", "/nope"),
            404,
            "no-such-route",
        ),
        (
            "wrong method",
            &lab.admin,
            Call::new("DELETE", "/api/v1/patients"),
            405,
            "method-not-allowed",
        ),
        (
            "slug taken",
            ops,
            post("/api/v1/tenants").json(&crate::support::new_lab("acme-lab")),
            409,
            "slug-taken",
        ),
        (
            "slug in capitals",
            ops,
            post("/api/v1/tenants").json(&crate::support::new_lab("Acme_Lab")),
            422,
            "invalid-slug",
        ),
        (
            "slug with SQL",
            ops,
            post("/api/v1/tenants").json(&with_slug("a\"; DROP DATABASE x; --")),
            422,
            "invalid-slug",
        ),
        (
            "weak password",
            ops,
            post("/api/v1/tenants").json(&with_password("short")),
            422,
            "weak-password",
        ),
        (
            "unknown tenant",
            ops,
            Call::new("GET", format!("/api/v1/tenants/{nobody}")),
            404,
            "unknown-tenant",
        ),
        (
            "suspend nobody",
            ops,
            post(&format!("/api/v1/tenants/{nobody}/suspend")),
            404,
            "unknown-tenant",
        ),
        (
            "resume the active",
            ops,
            post(&format!("/api/v1/tenants/{}/resume", lab.id)),
            409,
            "illegal-transition",
        ),
        (
            "unknown operation",
            ops,
            Call::new("GET", format!("/api/v1/operations/{nobody}")),
            404,
            "not-found",
        ),
        (
            "import of a picture",
            &lab.technician,
            post("/api/v1/imports").body("image/png", "x"),
            415,
            "unsupported-media-type",
        ),
        (
            "empty import",
            &lab.technician,
            post("/api/v1/imports").body("text/csv", ""),
            400,
            "body-empty",
        ),
        (
            "bad key",
            &lab.receptionist,
            patients()
                .json(&patient(&json!({})))
                .header("idempotency-key", "k".repeat(200)),
            400,
            "bad-header",
        ),
    ];
    for (what, token, call, status, code) in table {
        println!("{what}");
        let reply = d.send(&call, token).await;
        reply.refused(status, code);
        if status == 405 {
            assert_eq!(reply.header("allow"), "GET, HEAD, POST");
        }
        if status == 401 {
            assert!(reply.header("www-authenticate").starts_with("Bearer"));
        }
    }
    let position = d
        .send(
            &patients().body("application/json", "{\n  \"sex\": oops}"),
            &lab.receptionist,
        )
        .await;
    assert!(
        position.json["detail"]
            .as_str()
            .unwrap()
            .contains("line 2 column"),
        "{}",
        position.text
    );
    // Nothing of all this was kept.
    assert_eq!(
        d.get(&lab.receptionist, "/api/v1/patients").await.expect(200)["items"],
        json!([])
    );
    assert!(!world.stop_and_log().await.contains("panicked"));
}

fn patient(change: &Value) -> Value {
    let mut body =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

fn with_slug(slug: &str) -> Value {
    let mut body = crate::support::new_lab("bravo-lab");
    body["slug"] = json!(slug);
    body
}

fn with_password(password: &str) -> Value {
    let mut body = crate::support::new_lab("bravo-lab");
    body["admin"]["password"] = json!(password);
    body
}

#[tokio::test]
async fn every_problem_type_leads_to_its_page() {
    let world = World::start().await;
    let types = world.server.get("", "/problems").await.expect(200);
    for kind in types.as_array().unwrap() {
        let page = world
            .server
            .get("", kind["type"].as_str().unwrap())
            .await
            .expect(200);
        assert_eq!(&page, kind);
    }
    world
        .server
        .get("", "/problems/nope")
        .await
        .refused(404, "no-such-route");
    world.stop().await;
}

#[tokio::test]
async fn fifty_megabytes_are_refused_without_being_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::start().await;
    let address = world.server.url.strip_prefix("http://").unwrap();
    let length = 50 * 1024 * 1024;
    // Announced: refused before the first byte of it is sent.
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed")
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\"code\":\"body-too-large\""), "{answer}");

    // Not announced: refused when the limit is passed, while the rest is still to come.
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"4001\r\n".as_slice(), &vec![b'x'; 0x4001], b"\r\n"].concat();
    stream.write_all(&chunk).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    world.server.get("", "/livez").await.expect(200);
    world.stop().await;
}

#[tokio::test]
async fn a_token_of_another_installation_an_old_one_and_an_operators_are_each_refused() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_AUTH_TOKEN_TTL_S".to_owned(), "60".to_owned());
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let claims = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let (head, signature) = lab
        .receptionist
        .split_once('.')
        .map(|(h, rest)| (h, rest.rsplit_once('.').unwrap().1))
        .unwrap();
    // Another's claims under this signature, no signature, and the algorithm "none".
    let forged = [
        format!("{head}.{}.{signature}", claims(&lab.admin)),
        format!("{head}.{}.", claims(&lab.admin)),
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", claims(&lab.admin)),
    ];
    for token in &forged {
        d.get(token, "/api/v1/staff").await.refused(401, "token-invalid");
    }
    // Signed by another installation's key.
    let mut env = environment(&world.space);
    env.insert(
        "TENANTRY_STATE_DIR".to_owned(),
        world.space.dir().join("other").display().to_string(),
    );
    let key = std::fs::read(world.space.dir().join("state/keys/seal.key")).unwrap();
    std::fs::create_dir_all(world.space.dir().join("other/keys")).unwrap();
    let copy = world.space.dir().join("other/keys/seal.key");
    std::fs::write(&copy, key).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&copy, mode).unwrap();
    let other = Tenantd::start(&world.space, env).await;
    let foreign = other.log_in(&Lab::email("acme-lab", "admin"), None).await;
    other.get(&foreign, "/api/v1/staff").await.expect(200);
    d.get(&foreign, "/api/v1/staff")
        .await
        .refused(401, "token-invalid");
    other.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn every_refused_body_names_its_field() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (body, pointer) in [
        // An object whose only key is a word was taken for the word.
        (json!({ "sex": { "F": null } }), "sex"),
        (json!({ "sex": null }), "sex"),
        (json!({ "sex": "female" }), "sex"),
        (json!({ "birthDate": "1980-13-41" }), "birthDate"),
        (json!({ "birthDate": 19_800_401 }), "birthDate"),
        (json!({ "familyName": 7 }), "familyName"),
        (json!({ "familyName": "a\u{0}b" }), "familyName"),
        (json!({ "famliyName": "x" }), "famliyName"),
    ] {
        let call = Call::new("POST", "/api/v1/patients").json(&patient(&body));
        let reply = d.send(&call, &lab.receptionist).await;
        let problem = reply.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let order = json!({ "patientId": "x", "priority": "stat", "tests": ["K"] });
    let reply = d.post(&lab.technician, "/api/v1/orders", order).await;
    assert_eq!(reply.expect(422)["errors"][0]["pointer"], "patientId");
    let items = json!({ "items": [{ "id": "0190a5b0-0000-7000-8000-000000000001", "version": "1" }] });
    let reply = d.post(&lab.supervisor, "/api/v1/verifications", items).await;
    assert_eq!(reply.expect(422)["errors"][0]["pointer"], "items[0].version");
    let reply = d.get(&lab.receptionist, "/api/v1/patients?limit=many").await;
    assert_eq!(reply.expect(400)["errors"][0]["pointer"], "limit");
}
