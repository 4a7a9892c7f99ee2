//! A laboratory's first administrator sets the password by a link, and nobody else does.

use model::{Clock as _, SystemClock};
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Call, LIMIT, PASSWORD, Reply, Tenantd, World, connect, finished, new_lab, provision};

const SLUG: &str = "acme-lab";
const EMAIL: &str = "admin@acme-lab.example";
const ACCEPT: &str = "/api/v1/auth/invitations/accept";
const ANOTHER: &str = "another good one";

/// The body that asks for a laboratory whose admin is invited.
fn inviting(slug: &str) -> Value {
    let mut body = new_lab(slug);
    body["admin"].as_object_mut().unwrap().remove("password");
    body
}

async fn accept(d: &Tenantd, token: &Value, password: &str) -> Reply {
    let body = json!({ "token": token, "password": password });
    d.post("", ACCEPT, body).await
}

/// Asks for a laboratory, waits until it is active and gives the answer to the request.
async fn invited(world: &World, slug: &str) -> Value {
    let d = &world.server;
    let asked = d.post(&world.operator, "/api/v1/tenants", inviting(slug)).await;
    assert_eq!(asked.header("cache-control"), "no-store");
    let location = asked.header("location").to_owned();
    let asked = asked.expect(202);
    let note = asked["notes"][0].as_str().unwrap();
    assert!(note.contains("from 18 years"), "{note}");
    let operation = finished(d, &world.operator, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    asked
}

async fn admin(world: &World, tenant: &Value) -> Value {
    let path = format!("/api/v1/tenants/{}/admins", tenant.as_str().unwrap());
    world.server.get(&world.operator, &path).await.expect(200)[0].clone()
}

async fn invite(world: &World, tenant: &Value, admin: &Value) -> Reply {
    let (tenant, admin) = (tenant.as_str().unwrap(), admin.as_str().unwrap());
    let path = format!("/api/v1/tenants/{tenant}/admins/{admin}/invitation");
    world.server.post(&world.operator, &path, json!({})).await
}

/// The hash in the laboratory's staff list.
async fn in_laboratory(world: &World) -> Option<String> {
    let database = format!("{}_tenant_{SLUG}", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    let sql = "SELECT password_hash FROM staff WHERE role = 'lab_admin'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn in_registry(world: &World) -> Option<String> {
    let client = connect(&world.space.registry).await;
    let sql = "SELECT password_hash FROM tenant_admins";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn audited(world: &World) -> Vec<(String, String)> {
    let client = connect(&world.space.registry).await;
    let sql = "SELECT action, split_part(actor, ':', 1), detail::text FROM audit_log
                WHERE action ~ 'invit|password' OR detail->>'via' = 'invitation' ORDER BY id";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many acceptances were refused.
async fn refusals(world: &World) -> i64 {
    let client = connect(&world.space.registry).await;
    let sql = "SELECT sum(refusals)::int8 FROM login_refusals WHERE audience = 'invitation'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_invited_admin_sets_the_password_once_and_works() {
    let world = World::start_with(|env| {
        let url = "https://lab.example/tenantry/".to_owned();
        env.insert("TENANTRY_HTTP_PUBLIC_URL".to_owned(), url);
    })
    .await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let (tenant, invitation) = (&asked["tenantId"], &asked["invitation"]);
    let token = invitation["token"].as_str().unwrap();
    assert_eq!(token.len(), 43);
    assert_eq!(invitation["path"], format!("/invitation#{token}"));
    assert_eq!(
        invitation["link"],
        format!("https://lab.example/tenantry/invitation#{token}")
    );
    // A week, as nothing else was configured.
    let left = invitation["expiresAt"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    let left = left.duration_since(SystemClock.now()).as_secs();
    assert!((604_000..=604_800).contains(&left), "{left}");
    let known = admin(&world, tenant).await;
    assert_eq!(
        (
            &known["id"],
            &known["email"],
            &known["hasPassword"],
            &known["invitedUntil"]
        ),
        (
            &invitation["adminId"],
            &json!(EMAIL),
            &json!(false),
            &invitation["expiresAt"]
        )
    );
    // Nobody gets in without a password, nor does the token get in.
    for password in [PASSWORD, token, ""] {
        d.try_log_in(EMAIL, password, None)
            .await
            .refused(401, "login-failed");
        d.try_log_in(EMAIL, password, Some(SLUG))
            .await
            .refused(401, "login-failed");
    }
    accept(d, &invitation["token"], "short")
        .await
        .refused(422, "weak-password");

    let session = accept(d, &invitation["token"], PASSWORD).await.expect(200);
    assert_eq!(
        (&session["tenantId"], &session["role"]),
        (tenant, &json!("lab_admin"))
    );
    let staff = d
        .get(session["accessToken"].as_str().unwrap(), "/api/v1/staff")
        .await;
    assert_eq!(staff.expect(200)["items"][0]["hasPassword"], true);
    d.log_in(EMAIL, None).await;
    assert_eq!(in_laboratory(&world).await, in_registry(&world).await);
    let known = admin(&world, tenant).await;
    assert_eq!(
        (&known["hasPassword"], &known["invitedUntil"]),
        (&json!(true), &json!(null))
    );
    // Used is used, also with the password that it set, and is told as a wrong one is.
    for password in [PASSWORD, ANOTHER] {
        let again = accept(d, &invitation["token"], password).await;
        again.refused(401, "invitation-invalid");
        let wrong = accept(d, &json!("no such token"), password).await;
        assert_eq!(again.json["detail"], wrong.json["detail"]);
    }
    d.log_in(EMAIL, None).await;
    let written = audited(&world).await;
    let written: Vec<_> = written
        .iter()
        .map(|(action, by)| (action.as_str(), by.as_str()))
        .collect();
    assert_eq!(
        written,
        [
            ("admin.invited", "operator"),
            ("invitation.accepted", "staff"),
            ("admin.password_set", "staff"),
            ("login.succeeded", "staff"),
        ]
    );
    assert_eq!(refusals(&world).await, 4);
    // The token and the password are in nothing that is kept.
    let digest = "SELECT encode(token_sha256, 'hex') FROM admin_invitations";
    let client = connect(&world.space.registry).await;
    let digest: String = client.query_one(digest, &[]).await.unwrap().get(0);
    assert!(!digest.contains(token));
    let sql = "SELECT string_agg(t::text, ' ') FROM audit_log t";
    let audit: String = client.query_one(sql, &[]).await.unwrap().get(0);
    let token = token.to_owned();
    drop(client);
    let log = world.stop_and_log().await;
    for secret in [token.as_str(), PASSWORD, "argon2id"] {
        assert!(!audit.contains(secret) && !log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_newer_invitation_takes_the_place_of_the_one_before_and_resets_a_lost_password() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let (tenant, first) = (&asked["tenantId"], &asked["invitation"]);
    assert_eq!(first["link"], Value::Null, "no public address is configured");
    let second = invite(&world, tenant, &first["adminId"]).await.expect(201);
    accept(d, &first["token"], PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    accept(d, &second["token"], PASSWORD).await.expect(200);
    // Lost: the old one stays valid until the new one is set.
    let reset = invite(&world, tenant, &first["adminId"]).await.expect(201);
    d.log_in(EMAIL, None).await;
    accept(d, &reset["token"], ANOTHER).await.expect(200);
    d.try_log_in(EMAIL, PASSWORD, None)
        .await
        .refused(401, "login-failed");
    d.try_log_in(EMAIL, ANOTHER, None).await.expect(200);

    // One that has expired is told as any other.
    let late = invite(&world, tenant, &first["adminId"]).await.expect(201);
    world
        .registry_execute("UPDATE admin_invitations SET expires_at = clock_timestamp()")
        .await;
    accept(d, &late["token"], PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    assert_eq!(admin(&world, tenant).await["invitedUntil"], Value::Null);
    // Who may not log in gets no way around that.
    let open = invite(&world, tenant, &first["adminId"]).await.expect(201);
    world
        .registry_execute("UPDATE tenant_admins SET disabled_at = now()")
        .await;
    accept(d, &open["token"], PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    invite(&world, tenant, &first["adminId"])
        .await
        .refused(409, "illegal-transition");

    let nobody = json!("0190a5b0-0000-7000-8000-000000000001");
    invite(&world, tenant, &nobody).await.refused(404, "not-found");
    invite(&world, &nobody, &first["adminId"])
        .await
        .refused(404, "not-found");
    invite(&world, tenant, &json!("ada"))
        .await
        .refused(404, "not-found");
    world.stop().await;
}

#[tokio::test]
async fn an_invitation_is_taken_back_by_an_operator_and_by_a_new_address() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let (tenant, first) = (&asked["tenantId"], &asked["invitation"]);
    let path = |tenant: &str, admin: &str| format!("/api/v1/tenants/{tenant}/admins/{admin}/invitation");
    let (id, person) = (tenant.as_str().unwrap(), first["adminId"].as_str().unwrap());
    let revoke = async |path: String| d.send(&Call::new("DELETE", path), &world.operator).await;
    // The second time there is nothing left to be taken back.
    for _ in 0..2 {
        assert_eq!(revoke(path(id, person)).await.status, 204);
        accept(d, &first["token"], PASSWORD)
            .await
            .refused(401, "invitation-invalid");
    }
    assert_eq!(admin(&world, tenant).await["invitedUntil"], Value::Null);
    let nobody = "0190a5b0-0000-7000-8000-000000000001";
    revoke(path(id, nobody)).await.refused(404, "not-found");
    revoke(path(nobody, person)).await.refused(404, "not-found");
    revoke(path("acme", person)).await.refused(404, "unknown-tenant");
    revoke(path(id, "ada")).await.refused(404, "not-found");
    let revoked = |written: &[(String, String)]| {
        let same = written
            .iter()
            .filter(|(action, by)| action == "invitation.revoked" && by == "operator");
        same.count()
    };
    assert_eq!(revoked(&audited(&world).await), 1);

    let second = invite(&world, tenant, &first["adminId"]).await.expect(201);
    let session = accept(d, &second["token"], PASSWORD).await.expect(200);
    let reset = invite(&world, tenant, &first["adminId"]).await.expect(201);
    let bearer = session["accessToken"].as_str().unwrap();
    let staff = d.get(bearer, "/api/v1/staff").await.expect(200);
    let moved = Call::new("PATCH", format!("/api/v1/staff/{person}"))
        .json(&json!({ "email": "ada@elsewhere.example" }))
        .version(&staff["items"][0]["version"]);
    d.send(&moved, bearer).await.expect(200);
    accept(d, &reset["token"], ANOTHER)
        .await
        .refused(401, "invitation-invalid");
    d.try_log_in("ada@elsewhere.example", PASSWORD, None)
        .await
        .expect(200);
    world.stop().await;
}

#[tokio::test]
async fn a_laboratory_that_is_not_in_service_says_so_and_the_invitation_stays() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let (tenant, token) = (asked["tenantId"].as_str().unwrap(), &asked["invitation"]["token"]);
    let change = async |what: &str| {
        let path = format!("/api/v1/tenants/{tenant}/{what}");
        d.post(&world.operator, &path, json!({})).await.expect(200);
    };
    change("suspend").await;
    eventually("the suspension to be heard", LIMIT, async || {
        accept(d, token, PASSWORD).await.code() == "tenant-suspended"
    })
    .await;
    accept(d, token, PASSWORD).await.refused(403, "tenant-suspended");
    assert_eq!(in_registry(&world).await, None);
    world
        .registry_execute("UPDATE tenants SET status = 'provisioning'")
        .await;
    eventually("the state to be heard", LIMIT, async || {
        accept(d, token, PASSWORD).await.code() == "tenant-provisioning"
    })
    .await;
    assert_eq!(in_registry(&world).await, None);
    world
        .registry_execute("UPDATE tenants SET status = 'suspended'")
        .await;
    change("resume").await;
    eventually("the laboratory to serve", LIMIT, async || {
        accept(d, token, PASSWORD).await.status == 200
    })
    .await;
    d.log_in(EMAIL, None).await;
    world.stop().await;
}

#[tokio::test]
async fn an_acceptance_that_only_the_registry_has_taken_is_completed_by_the_same_request() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let token = &asked["invitation"]["token"];
    let database = format!("{}_tenant_{SLUG}", world.space.namespace.as_str());
    let inside = connect(&world.space.server.with_database(database)).await;
    // The laboratory's commit fails, and it comes behind the registry's.
    let breaks =
        "CREATE FUNCTION breaks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$;
         CREATE CONSTRAINT TRIGGER breaks AFTER UPDATE ON staff DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION breaks()";
    inside.batch_execute(breaks).await.unwrap();
    accept(d, token, PASSWORD).await.refused(500, "internal");
    assert_eq!(in_laboratory(&world).await, None);
    assert!(in_registry(&world).await.is_some());
    inside
        .batch_execute("DROP TRIGGER breaks ON staff; DROP FUNCTION breaks")
        .await
        .unwrap();
    // Whoever has the token alone completes nothing.
    accept(d, token, ANOTHER).await.refused(401, "invitation-invalid");
    assert_eq!(in_laboratory(&world).await, None);
    accept(d, token, PASSWORD).await.expect(200);
    assert_eq!(in_laboratory(&world).await, in_registry(&world).await);
    accept(d, token, PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    d.log_in(EMAIL, None).await;
    world.stop().await;
}

#[tokio::test]
async fn an_acceptance_that_was_cut_off_is_not_completed_over_a_newer_password() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let token = &asked["invitation"]["token"];
    let database = format!("{}_tenant_{SLUG}", world.space.namespace.as_str());
    let mut inside = connect(&world.space.server.with_database(database)).await;
    let sql = "SELECT set_config('search_path', 'public', false)";
    inside.execute(sql, &[]).await.unwrap();
    for changed in [
        "UPDATE tenant_admins SET password_hash = 'newer'",
        "UPDATE tenant_admins SET disabled_at = now()",
        "DELETE FROM admin_invitations",
    ] {
        // As it is when it broke between the two commits.
        accept(d, token, PASSWORD).await;
        let kept = "UPDATE staff SET password_hash = NULL WHERE role = 'lab_admin'";
        inside.batch_execute(kept).await.unwrap();
        let hash = in_registry(&world).await.unwrap();
        // The change is under way in the laboratory while the token is sent again.
        let txn = inside.transaction().await.unwrap();
        let first = "UPDATE staff SET display_name = display_name WHERE role = 'lab_admin'";
        txn.batch_execute(first).await.unwrap();
        let again = accept(d, token, PASSWORD);
        let change = async {
            let sql = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'";
            eventually("the acceptance to wait", LIMIT, async || {
                txn.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
            })
            .await;
            let kept = "CREATE TABLE IF NOT EXISTS kept AS TABLE admin_invitations";
            world.registry_execute(kept).await;
            world.registry_execute(changed).await;
            txn.commit().await.unwrap();
        };
        let (again, ()) = tokio::join!(again, change);
        again.refused(401, "invitation-invalid");
        assert_eq!(in_laboratory(&world).await, None, "{changed}");
        // Put back for the next one.
        let back = format!("UPDATE tenant_admins SET disabled_at = NULL, password_hash = '{hash}'");
        world.registry_execute(&back).await;
        world
            .registry_execute("INSERT INTO admin_invitations TABLE kept ON CONFLICT DO NOTHING")
            .await;
    }
    world.registry_execute("DROP TABLE kept").await;
    world.stop().await;
}

#[tokio::test]
async fn a_request_that_is_repeated_invites_again_until_somebody_has_accepted() {
    let world = World::start().await;
    let d = &world.server;
    let ask = async |body: &Value| {
        let call = Call::new("POST", "/api/v1/tenants").json(body);
        d.send(&call.header("idempotency-key", "k-1"), &world.operator)
            .await
    };
    let first = ask(&inviting(SLUG)).await;
    let location = first.header("location").to_owned();
    let first = first.expect(202);
    let again = ask(&inviting(SLUG)).await.expect(202);
    assert_eq!(first["operationId"], again["operationId"]);
    // A password now would not count, so it is refused.
    ask(&new_lab(SLUG)).await.refused(422, "idempotency-key-reused");
    finished(d, &world.operator, &location).await;
    accept(d, &first["invitation"]["token"], PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    accept(d, &again["invitation"]["token"], PASSWORD)
        .await
        .expect(200);
    let after = ask(&inviting(SLUG)).await.expect(202);
    assert_eq!(first["operationId"], after["operationId"]);
    assert_eq!(after.get("invitation"), None, "{after}");
    // With a password there is none from the beginning.
    let asked = d
        .post(&world.operator, "/api/v1/tenants", new_lab("bravo-lab"))
        .await;
    assert_eq!(asked.expect(202).get("invitation"), None);
    world.stop().await;
}

#[tokio::test]
async fn of_many_that_accept_at_once_one_does() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    let token = &asked["invitation"]["token"];
    let passwords = ["the first of them", "the second of them", "the third of them"];
    let [a, b, c] = passwords.map(|password| accept(d, token, password));
    let (a, b, c) = tokio::join!(a, b, c);
    let mut ok = Vec::new();
    for (reply, password) in [a, b, c].into_iter().zip(passwords) {
        match reply.status {
            200 => ok.push(password),
            _ => reply.refused(401, "invitation-invalid"),
        }
    }
    let [winner] = ok.as_slice() else { panic!("{ok:?}") };
    for password in passwords {
        let status = d.try_log_in(EMAIL, password, None).await.status;
        assert_eq!(status == 200, password == *winner, "{password}");
    }
    assert_eq!(in_laboratory(&world).await, in_registry(&world).await);
    world.stop().await;
}

#[tokio::test]
async fn guessing_is_slow_and_keeps_nobody_out_who_was_invited() {
    let world = World::start().await;
    let d = &world.server;
    let asked = invited(&world, SLUG).await;
    for at in 0..10 {
        let token = json!(format!("guess {at}"));
        accept(d, &token, PASSWORD)
            .await
            .refused(401, "invitation-invalid");
    }
    let refused = accept(d, &json!("guess 10"), PASSWORD).await;
    refused.refused(429, "too-many-attempts");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    // What is past the limit is not counted: it costs nothing.
    assert_eq!(refusals(&world).await, 10);
    accept(d, &asked["invitation"]["token"], PASSWORD)
        .await
        .expect(200);
    for body in [
        json!({ "token": 7, "password": PASSWORD }),
        json!({ "password": PASSWORD }),
        json!({ "token": "x", "password": PASSWORD, "email": EMAIL }),
    ] {
        let status = d.post("", ACCEPT, body).await.status;
        assert_eq!(status, 422);
    }
    world.stop().await;
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_nothing_else() {
    let world = World::start().await;
    let page = world.server.get("", "/invitation").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("cache-control"), "no-store");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let between = |from: &str, to: &str| {
        let (_, rest) = page.text.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.to_owned()
    };
    // The digests in the policy are those of what stands in the page.
    for (directive, text) in [
        ("style-src", between("<style>", "</style>")),
        ("script-src", between("<script>", "</script>")),
    ] {
        assert!(text.len() > 100, "{text}");
        let digest = digest(&text);
        assert!(
            policy.contains(&format!("{directive} 'sha256-{digest}'")),
            "{policy}"
        );
    }
    for outside in [
        "http://",
        "https://",
        "src=",
        "href=",
        " onclick",
        " onsubmit",
        "style=\"",
    ] {
        assert!(!page.text.contains(outside), "{outside}");
    }
    world
        .server
        .post("", "/invitation", json!({}))
        .await
        .refused(405, "method-not-allowed");
    world.stop().await;
}

fn digest(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

#[tokio::test]
async fn an_admin_with_a_password_can_be_invited_too_and_keeps_it_until_then() {
    let world = World::start().await;
    let d = &world.server;
    let tenant = json!(provision(d, &world.operator, SLUG).await);
    let known = admin(&world, &tenant).await;
    assert_eq!(known["hasPassword"], true);
    let made = invite(&world, &tenant, &known["id"]).await.expect(201);
    d.log_in(EMAIL, None).await;
    accept(d, &made["token"], ANOTHER).await.expect(200);
    d.try_log_in(EMAIL, PASSWORD, None)
        .await
        .refused(401, "login-failed");
    world.stop().await;
}

#[tokio::test]
async fn a_password_that_is_set_elsewhere_ends_the_invitation_under_way() {
    let world = World::start().await;
    let d = &world.server;
    let tenant = json!(provision(d, &world.operator, SLUG).await);
    let known = admin(&world, &tenant).await;
    let made = invite(&world, &tenant, &known["id"]).await.expect(201);
    let token = d.log_in(EMAIL, None).await;
    let body = json!({ "currentPassword": PASSWORD, "newPassword": ANOTHER });
    d.post(&token, "/api/v1/me/password", body).await.expect(200);
    accept(d, &made["token"], PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    assert_eq!(admin(&world, &tenant).await["invitedUntil"], Value::Null);
    d.try_log_in(EMAIL, ANOTHER, None).await.expect(200);
    world.stop().await;
}
