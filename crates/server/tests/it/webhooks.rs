//! Events out of the real `tenantd`: to a real receiver, and also when the process is killed between a change
//! and its telling.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::{Space, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::support::{LIMIT, Tenantd, World, environment, operator_token, prepare, provision};

/// Keeps the bodies of what comes, and answers 204.
#[derive(Clone)]
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            got: Arc::default(),
        };
        let got = receiver.got.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, got.clone()));
            }
        });
        receiver
    }

    fn types(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        got.iter()
            .map(|got| got["type"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn gets(&self, kind: &str) {
        eventually(kind, LIMIT, async || self.types().iter().any(|got| got == kind)).await;
    }
}

async fn serve(socket: TcpStream, got: Arc<Mutex<Vec<Value>>>) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        got.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        socket.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.ok()?;
    }
}

async fn register(d: &Tenantd, operator: &str, url: &str) -> Value {
    let body = json!({ "url": url, "description": "the billing" });
    let made = d.post(operator, "/api/v1/webhooks", body).await.expect(201);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    made
}

#[tokio::test]
async fn a_laboratorys_life_is_told_and_each_delivery_can_be_looked_at() {
    let world = World::start_with(|env| {
        env.insert(
            "TENANTRY_WEBHOOKS_PRIVATE_ADDRESSES".to_owned(),
            "allow".to_owned(),
        );
        env.insert("TENANTRY_WEBHOOKS_POLL_MS".to_owned(), "20".to_owned());
    })
    .await;
    let (d, operator) = (&world.server, &world.operator);
    let receiver = Receiver::start().await;
    let webhook = register(d, operator, &receiver.url).await;
    let tenant = provision(d, operator, "acme-lab").await;
    d.post(operator, &format!("/api/v1/tenants/{tenant}/suspend"), json!({}))
        .await
        .expect(200);
    receiver.gets("laboratory.suspended").await;
    let mut types = receiver.types();
    types.retain(|kind| kind != "webhook.test");
    assert_eq!(
        types,
        [
            "laboratory.created",
            "laboratory.activated",
            "operation.succeeded",
            "laboratory.suspended"
        ]
    );

    let path = format!("/api/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let shown = d.get(operator, &path).await.expect(200);
    assert_eq!(
        (&shown["secret"], &shown["disabledAt"]),
        (&Value::Null, &Value::Null)
    );
    let tested = d.post(operator, &format!("{path}/test"), json!({})).await;
    let location = tested.header("location").to_owned();
    tested.expect(202);
    eventually("the test's delivery", LIMIT, async || {
        let delivery = d.get(operator, &location).await.expect(200);
        delivery["status"] == "delivered" && delivery["log"][0]["statusCode"] == 204
    })
    .await;
    let page = d
        .get(operator, &format!("{path}/deliveries?limit=2"))
        .await
        .expect(200);
    assert_eq!(page["items"][0]["eventType"], "webhook.test");
    let next = page["next"].as_str().unwrap();
    let rest = d
        .get(operator, &format!("{path}/deliveries?after={next}"))
        .await
        .expect(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 3, "{rest}");

    let metrics = d.get("", "/metrics").await.text;
    let line = r#"tenantry_webhook_attempts_total{status="delivered"} 5"#;
    assert!(metrics.contains(line), "{metrics}");
    assert!(
        metrics.contains("tenantry_webhook_deliveries_waiting 0"),
        "{metrics}"
    );

    for (body, pointer) in [
        (json!({ "url": "ftp://example.org/" }), "url"),
        (
            json!({ "url": "https://example.org/", "eventTypes": ["webhook.test"] }),
            "eventTypes",
        ),
    ] {
        let refused = d.post(operator, "/api/v1/webhooks", body).await.expect(422);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let unknown = json!({ "url": "https://example.org/", "eventTypes": ["laboratory.exploded"] });
    let refused = d.post(operator, "/api/v1/webhooks", unknown).await;
    assert!((400..500).contains(&refused.status), "{}", refused.text);
    let log = world.stop_and_log().await;
    assert!(!log.contains("whsec_"), "no secret in the log");
}

#[tokio::test]
async fn what_was_committed_is_told_though_the_process_was_killed_right_behind_it() {
    let space = Space::new().await;
    let mut env = environment(&space);
    env.insert(
        "TENANTRY_WEBHOOKS_PRIVATE_ADDRESSES".to_owned(),
        "allow".to_owned(),
    );
    prepare(&env).await;
    // This one looks for deliveries at its start and then not for ten minutes.
    env.insert("TENANTRY_WEBHOOKS_POLL_MS".to_owned(), "600000".to_owned());
    let d = Tenantd::start(&space, env.clone()).await;
    let operator = operator_token(&d).await;
    let receiver = Receiver::start().await;
    let tenant = provision(&d, &operator, "acme-lab").await;
    let webhook = register(&d, &operator, &receiver.url).await;
    d.post(&operator, &format!("/api/v1/tenants/{tenant}/suspend"), json!({}))
        .await
        .expect(200);
    let path = format!("/api/v1/webhooks/{}/deliveries", webhook["id"].as_str().unwrap());
    let waiting = d.get(&operator, &path).await.expect(200);
    assert_eq!(waiting["items"][0]["status"], "pending");
    d.kill().await;
    assert_eq!(receiver.types(), Vec::<String>::new());

    env.insert("TENANTRY_WEBHOOKS_POLL_MS".to_owned(), "20".to_owned());
    let d = Tenantd::start(&space, env).await;
    receiver.gets("laboratory.suspended").await;
    assert_eq!(d.stop().await, Some(0));
    assert_eq!(receiver.types(), ["laboratory.suspended"]);
}
