//! Bodies: how much of one is read, for whom, and for how long.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Call, LIMIT, Lab, PASSWORD, Tenantd, World};

const MIB: usize = 1024 * 1024;

/// Sends a head that announces `length` bytes, then `body`, and reads what is answered until the connection
/// closes.
async fn half_sent(d: &Tenantd, route: &str, token: &str, length: usize, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(d.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "{route} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed")
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn told(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
}

#[tokio::test]
async fn a_body_may_be_as_large_as_its_call_needs_and_no_larger() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    // Announced, and refused before a byte of it is there.
    for route in [
        "POST /api/v1/auth/login",
        "POST /api/v1/operators/login",
        "POST /api/v1/auth/invitations/accept",
    ] {
        told(&half_sent(d, route, "", 20_000, b"").await, 413, "body-too-large");
    }
    for route in ["POST /api/v1/patients", "POST /api/v1/verifications"] {
        told(
            &half_sent(d, route, &lab.admin, 2 * MIB, b"").await,
            413,
            "body-too-large",
        );
    }
    told(
        &half_sent(d, "POST /api/v1/tenants", &world.operator, 2 * MIB, b"").await,
        413,
        "body-too-large",
    );
    // Not announced: the same once it has come.
    let long = json!({ "email": "ada@acme-lab.example", "password": "x".repeat(20_000) });
    let call = Call::new("POST", "/api/v1/auth/login").json(&long);
    d.send(&call, "").await.refused(413, "body-too-large");
    // What people really send fits, also with every character escaped.
    let password: String = "\u{1F600}"
        .repeat(128)
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    let body = format!(
        "{{\"email\": \"{}\", \"password\": \"{password}\"}}",
        Lab::email("acme-lab", "admin")
    );
    let call = Call::new("POST", "/api/v1/auth/login").body("application/json", body);
    d.send(&call, "").await.refused(401, "login-failed");
    world.stop().await;
}

#[tokio::test]
async fn nothing_of_a_body_is_read_for_somebody_without_a_token() {
    let world = World::start().await;
    let document = world.server.get("", "/openapi.json").await.expect(200);
    let open = [
        "/api/v1/auth/login",
        "/api/v1/operators/login",
        "/api/v1/auth/invitations/accept",
    ];
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["requestBody"].is_null() || open.contains(&path.as_str()) {
                continue;
            }
            let path = path
                .replace("{id}", "01890000-0000-7000-8000-000000000000")
                .replace(['{', '}'], "");
            let route = format!("{} {path}", method.to_uppercase());
            // Ten bytes never come: an answer means that nobody waited for them.
            let length = 10 + MIB / 2;
            told(
                &half_sent(&world.server, &route, "junk", length, &[b' '; 10]).await,
                401,
                "token-invalid",
            );
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_the_clients_fault() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_HTTP_REQUEST_TIMEOUT_MS".to_owned(), "2000".to_owned());
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (route, token) in [
        ("POST /api/v1/auth/login", ""),
        ("POST /api/v1/patients", lab.receptionist.as_str()),
        ("POST /api/v1/imports", lab.technician.as_str()),
    ] {
        told(
            &half_sent(d, route, token, 1000, b"{").await,
            408,
            "body-too-slow",
        );
    }
    let page = d.get("", "/metrics").await.text;
    let failed = page
        .lines()
        .find(|line| line.contains("status=\"5xx\"") && line.contains("_count"));
    assert_eq!(failed, None);
    d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
        .await
        .expect(200);
    world.stop().await;
}
