//! Guessing passwords: what it costs the guesser, and that nobody else pays for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::support::{
    Call, LIMIT, Lab, OPERATOR, PASSWORD, Reply, Tenantd, World, add_person, connect, finished, new_lab,
};

const WRONG: &str = "wrong password 1";
const LOGIN: &str = "/api/v1/auth/login";

/// Clients are told apart by what the proxy says: the tests' own connections come from the proxy.
async fn behind_proxy() -> World {
    World::start_with(|env| {
        env.insert(
            "TENANTRY_HTTP_TRUSTED_PROXIES".to_owned(),
            "127.0.0.0/8".to_owned(),
        );
    })
    .await
}

fn log_in_from(client: &str, path: &str, email: &str, password: &str, tenant: Option<&str>) -> Call {
    let mut body = json!({ "email": email, "password": password });
    if let Some(tenant) = tenant {
        body["tenant"] = json!(tenant);
    }
    Call::new("POST", path)
        .json(&body)
        .header("x-forwarded-for", client)
}

/// Guesses wrong until it is told to wait; gives how many guesses were answered.
async fn guess_until_refused(d: &Tenantd, call: &Call) -> (usize, Reply) {
    for at in 0..20 {
        let reply = d.send(call, "").await;
        if reply.status == 429 {
            reply.refused(429, "too-many-attempts");
            return (at, reply);
        }
        reply.refused(401, "login-failed");
    }
    panic!("twenty wrong passwords in a row were answered");
}

#[tokio::test]
async fn logging_in_to_an_account_of_ones_own_does_not_buy_guesses_at_another() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    // The operator's address on the laboratory's own staff list, with a password that its admin knows.
    let body = json!({ "email": OPERATOR, "displayName": "Eve", "role": "technician" });
    add_person(d, &lab.admin, &body).await;
    let guess = json!({ "email": OPERATOR, "password": WRONG });
    let mut answered = 0;
    for _ in 0..4 {
        for _ in 0..5 {
            let reply = d.post("", "/api/v1/operators/login", guess.clone()).await;
            match reply.status {
                401 => answered += 1,
                _ => reply.refused(429, "too-many-attempts"),
            }
        }
        d.try_log_in(OPERATOR, PASSWORD, Some("acme-lab"))
            .await
            .expect(200);
    }
    assert_eq!(answered, 10, "of 20 guesses");
    world.stop().await;
}

#[tokio::test]
async fn one_address_in_two_laboratories_is_two_accounts() {
    let world = World::start().await;
    let (one, two) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let d = &world.server;
    for lab in [&one, &two] {
        let body = json!({ "email": "tess@labs.example", "displayName": "Tess", "role": "technician" });
        add_person(d, &lab.admin, &body).await;
    }
    let guess = |tenant: &str| {
        Call::new("POST", LOGIN)
            .json(&json!({ "email": "Tess@labs.example", "password": WRONG, "tenant": tenant }))
    };
    let (answered, _) = guess_until_refused(d, &guess("acme-lab")).await;
    assert_eq!(answered, 10);
    // The laboratory's id names the same account as its slug.
    d.send(&guess(&one.id), "")
        .await
        .refused(429, "too-many-attempts");
    d.try_log_in("tess@labs.example", PASSWORD, Some("bravo-lab"))
        .await
        .expect(200);
    world.stop().await;
}

#[tokio::test]
async fn wrong_guesses_of_one_client_do_not_lock_out_another() {
    let world = behind_proxy().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "admin");
    let wrong = |client: &str| log_in_from(client, LOGIN, &email, WRONG, None);
    let right = |client: &str| log_in_from(client, LOGIN, &email, PASSWORD, None);
    for (guesser, same, other) in [
        ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
        // Whoever has one address of IPv6 has 2^64 of them: a client is its network.
        ("2001:db8:1:2::7", "2001:db8:1:2:ffff::1", "2001:db8:1:3::7"),
        // Only what the proxy itself wrote counts, not what the client sent in front of it.
        (
            "198.51.100.1, 192.0.2.77",
            "198.51.100.2, 192.0.2.77",
            "192.0.2.77, 192.0.2.78",
        ),
    ] {
        let (answered, told) = guess_until_refused(d, &wrong(guesser)).await;
        assert_eq!(answered, 10, "{guesser}");
        let wait: u32 = told.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        d.send(&right(same), "").await.refused(429, "too-many-attempts");
        d.send(&right(other), "").await.expect(200);
    }
    let client = connect(&world.space.registry).await;
    let sql =
        "SELECT host(client_ip) FROM audit_log WHERE action = 'login.succeeded' ORDER BY id DESC LIMIT 3";
    let seen = client.query(sql, &[]).await.unwrap();
    let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["192.0.2.78", "2001:db8:1:3::7", "203.0.113.8"]);
    drop(lab);
    world.stop().await;
}

#[tokio::test]
async fn a_forwarded_header_counts_where_the_settings_say_so() {
    let world = World::start_with(|env| {
        let settings = [
            ("TENANTRY_HTTP_TRUSTED_PROXIES", "127.0.0.1, 192.0.2.0/24"),
            ("TENANTRY_HTTP_CLIENT_HEADER", "forwarded"),
        ];
        env.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    })
    .await;
    let _lab = world.lab("acme-lab").await;
    let email = Lab::email("acme-lab", "admin");
    let call = log_in_from("198.51.100.99", LOGIN, &email, PASSWORD, None)
        .header(
            "forwarded",
            "for=198.51.100.98, For=\"[2001:db8::7]:4711\";proto=https",
        )
        .header("forwarded", "by=192.0.2.1; for=192.0.2.60:80");
    world.server.send(&call, "").await.expect(200);
    let client = connect(&world.space.registry).await;
    let sql =
        "SELECT host(client_ip) FROM audit_log WHERE action = 'login.succeeded' ORDER BY id DESC LIMIT 1";
    let seen: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(seen, "2001:db8::7");
    world.stop().await;
}

#[tokio::test]
async fn without_a_trusted_proxy_forwarding_headers_are_ignored_and_ops_are_told_once() {
    let world = World::start().await;
    let d = &world.server;
    for at in 0..10 {
        let call = log_in_from(
            &format!("203.0.113.{at}"),
            LOGIN,
            "ada@acme-lab.example",
            WRONG,
            None,
        );
        d.send(&call, "").await.refused(401, "login-failed");
    }
    let call = log_in_from("203.0.113.99", LOGIN, "ada@acme-lab.example", WRONG, None);
    d.send(&call, "").await.refused(429, "too-many-attempts");
    let log = world.stop_and_log().await;
    assert_eq!(log.matches("http.trusted_proxies").count(), 1, "{log}");
}

#[tokio::test]
async fn twenty_people_who_log_in_at_the_same_moment_all_get_in() {
    let world = World::start().await;
    let _lab = world.lab("acme-lab").await;
    let email = Lab::email("acme-lab", "admin");
    let call = Call::new("POST", LOGIN).json(&json!({ "email": email, "password": PASSWORD }));
    let statuses = at_once(&world.server, vec![call; 20]).await;
    assert_eq!(statuses, [200; 20]);
    world.stop().await;
}

/// Sends all of them at the same time; gives their statuses.
async fn at_once(d: &Tenantd, calls: Vec<Call>) -> Vec<u16> {
    let sent: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let (client, url) = (d.client.clone(), d.url.clone());
            tokio::spawn(async move { Tenantd::send_with(&client, &url, &call, "").await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in sent {
        statuses.push(one.await.unwrap());
    }
    statuses
}

/// Starts `count` log-ins of people who do not exist and waits until the first of them was answered.
async fn flood(d: &Tenantd, path: &'static str, count: usize, from: &'static str) -> Arc<AtomicUsize> {
    let answered = Arc::new(AtomicUsize::new(0));
    for at in 0..count {
        let (client, url, answered) = (d.client.clone(), d.url.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            let call = log_in_from(from, path, &format!("nobody-{at}@acme-lab.example"), WRONG, None);
            Tenantd::send_with(&client, &url, &call, "").await;
            answered.fetch_add(1, SeqCst);
        });
    }
    testkit::eventually("one of the flood is answered", LIMIT, async || {
        answered.load(SeqCst) > 0
    })
    .await;
    answered
}

#[tokio::test]
async fn a_flood_of_bogus_log_ins_does_not_hold_up_a_correct_one() {
    const FLOOD: usize = 250;
    let world = behind_proxy().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "admin");
    // From another address, and from the flood's own by somebody who has logged in from there before.
    let known = log_in_from("203.0.113.7", LOGIN, &email, PASSWORD, None);
    d.send(&known, "").await.expect(200);
    let answered = flood(d, LOGIN, FLOOD, "203.0.113.7").await;
    let other = log_in_from("198.51.100.1", LOGIN, &email, PASSWORD, None);
    d.send(&other, "").await.expect(200);
    d.send(&known, "").await.expect(200);
    let operator = log_in_from(
        "198.51.100.1",
        "/api/v1/operators/login",
        OPERATOR,
        PASSWORD,
        None,
    );
    d.send(&operator, "").await.expect(200);
    let answered = answered.load(SeqCst);
    assert!(answered < FLOOD, "the flood was over first");
    drop(lab);
    world.stop().await;
}

#[tokio::test]
async fn refusals_are_counted_and_not_written_one_by_one() {
    let world = behind_proxy().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "technician");
    let guess = |client: &str, email: &str| log_in_from(client, LOGIN, email, WRONG, Some("acme-lab"));
    for _ in 0..3 {
        d.send(&guess("203.0.113.7", &email), "")
            .await
            .refused(401, "login-failed");
    }
    let last = d.send(&guess("203.0.113.8", &email), "").await;
    last.refused(401, "login-failed");
    let made_up = (0..20)
        .map(|at| {
            guess(
                &format!("198.51.100.{at}"),
                &format!("nobody-{at}@acme-lab.example"),
            )
        })
        .collect();
    assert_eq!(at_once(d, made_up).await, [401; 20]);

    let client = connect(&world.space.registry).await;
    let written: i64 = client
        .query_one(
            "SELECT count(*) FROM audit_log WHERE action = 'login.refused'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(written, 0);
    let sql =
        "SELECT sum(refusals)::int8 FROM login_refusals WHERE audience = 'lab' AND reason = 'login-failed'";
    let counted: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(counted, 24);
    let sql = "SELECT text(client), sum(refusals)::int8 FROM login_refusals WHERE email = $1 AND tenant_id::text = $2
               GROUP BY 1 ORDER BY 1";
    let hers = client.query(sql, &[&email, &lab.id]).await.unwrap();
    let hers: Vec<(String, i64)> = hers.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        hers,
        [("203.0.113.7/32".to_owned(), 3), ("203.0.113.8/32".to_owned(), 1)]
    );
    world.stop().await;
}

#[tokio::test]
async fn the_answer_does_not_tell_in_how_many_laboratories_an_address_is_known() {
    let world = World::start().await;
    let (d, ops) = (&world.server, &world.operator);
    for slug in ["acme-lab", "bravo-lab", "carl-lab"] {
        let mut body = new_lab(slug);
        let email = if slug == "carl-lab" {
            "one@platform.example"
        } else {
            "both@platform.example"
        };
        body["admin"]["email"] = json!(email);
        let asked = d.post(ops, "/api/v1/tenants", body).await;
        let location = asked.header("location").to_owned();
        asked.expect(202);
        assert_eq!(finished(d, ops, &location).await["status"], "succeeded");
    }
    let mut bodies = Vec::new();
    for (email, password) in [
        // A password that fits both laboratories tells nothing, and neither does one that fits none.
        ("both@platform.example", PASSWORD),
        ("both@platform.example", WRONG),
        ("one@platform.example", WRONG),
        ("nobody@platform.example", PASSWORD),
    ] {
        let before = hashes(d).await;
        let reply = d.try_log_in(email, password, None).await;
        reply.refused(401, "login-failed");
        assert_eq!(hashes(d).await - before, 1, "{email} {password}");
        let mut body = reply.json;
        assert!(body["detail"].as_str().unwrap().contains("`tenant`"), "{body}");
        body["traceId"] = Value::Null;
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    d.try_log_in("one@platform.example", PASSWORD, None)
        .await
        .expect(200);
    for slug in ["acme-lab", "bravo-lab"] {
        d.try_log_in("both@platform.example", PASSWORD, Some(slug))
            .await
            .expect(200);
    }
    world.stop().await;
}

/// How many passwords were hashed since the start.
async fn hashes(d: &Tenantd) -> u64 {
    let page = d.get("", "/metrics").await.text;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("tenantry_password_hashes_total "));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}
