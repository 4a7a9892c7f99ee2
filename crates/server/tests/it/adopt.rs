//! A laboratory that was run without us is taken over, and its people log in as before.

use serde_json::{Value, json};

use crate::support::{Call, Lab, PASSWORD, World, connect, finished};

/// A laboratory's database as another installation has left it: the people are there, the laboratory itself
/// is nobody's here.
async fn left_behind(world: &World, slug: &str) -> String {
    let (d, operator) = (&world.server, &world.operator);
    let id = crate::support::provision(d, operator, slug).await;
    let namespace = world.space.namespace.as_str();
    let (made, old) = (
        format!("{namespace}_tenant_{slug}"),
        format!("{namespace}_old_{slug}"),
    );
    let suspend = format!("/api/v1/tenants/{id}/suspend");
    d.post(operator, &suspend, json!({})).await.expect(200);
    let server = connect(&world.space.server).await;
    for sql in [
        format!("ALTER DATABASE \"{made}\" WITH ALLOW_CONNECTIONS true"),
        format!("CREATE DATABASE \"{old}\" TEMPLATE \"{made}\""),
        format!("REVOKE ALL ON DATABASE \"{old}\" FROM PUBLIC"),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let inside = connect(&world.space.server.with_database(&old)).await;
    let sql = "SET session_replication_role = replica; UPDATE lab_profile SET tenant_id = gen_random_uuid()";
    inside.batch_execute(sql).await.unwrap();
    old
}

#[tokio::test]
async fn a_stranger_is_invited_only_where_that_is_said_and_a_password_is_not_replaced_by_a_link() {
    let world = World::start().await;
    let (d, operator) = (&world.server, &world.operator);
    let old = left_behind(&world, "acme-lab").await;
    let ask = async |admin: &Value, invite: Option<bool>| {
        let mut body = json!({ "database": old, "slug": "acme-two", "admin": admin });
        if let Some(invite) = invite {
            body["invite"] = json!(invite);
        }
        let call = Call::new("POST", "/api/v1/tenants/adopt").json(&body);
        d.send(&call.header("idempotency-key", "k-1"), operator).await
    };
    let stranger = json!({ "email": "mistyped@acme-lab.example" });
    let given = json!({ "email": "mistyped@acme-lab.example", "password": PASSWORD });
    for invite in [None, Some(false)] {
        ask(&stranger, invite).await.refused(422, "invalid");
    }
    ask(&given, Some(true)).await.refused(422, "invalid");
    let asked = ask(&stranger, Some(true)).await;
    assert_eq!(asked.header("cache-control"), "no-store");
    let location = asked.header("location").to_owned();
    let asked = asked.expect(202);
    // A password now would not count, so it is refused and the link stays good.
    ask(&given, None).await.refused(422, "idempotency-key-reused");
    finished(d, operator, &location).await;
    let body = json!({ "token": asked["invitation"]["token"], "password": PASSWORD });
    let accept = "/api/v1/auth/invitations/accept";
    d.post("", accept, body).await.expect(200);

    // With a password there is no link.
    let old = left_behind(&world, "bravo-lab").await;
    let body = json!({ "database": old, "slug": "bravo-two", "admin": given });
    let asked = d.post(operator, "/api/v1/tenants/adopt", body).await.expect(202);
    assert_eq!(asked.get("invitation"), None, "{asked}");
    world.stop().await;
}

#[tokio::test]
async fn people_of_an_adopted_laboratory_keep_their_passwords() {
    let world = World::start().await;
    let (d, operator) = (&world.server, &world.operator);
    // What another installation has made: a laboratory with people, of which nothing but its database is
    // left.
    let lab = world.lab("acme-lab").await;
    let namespace = world.space.namespace.as_str();
    let (made, old) = (
        format!("{namespace}_tenant_acme-lab"),
        format!("{namespace}_old_acme"),
    );
    let server = connect(&world.space.server).await;
    let suspend = format!("/api/v1/tenants/{}/suspend", lab.id);
    d.post(operator, &suspend, json!({})).await.expect(200);
    let hash: String = {
        let registry = connect(&world.space.registry).await;
        let sql = "SELECT password_hash FROM tenant_admins WHERE tenant_id = $1::text::uuid";
        registry.query_one(sql, &[&lab.id]).await.unwrap().get(0)
    };
    for sql in [
        format!("ALTER DATABASE \"{made}\" WITH ALLOW_CONNECTIONS true"),
        format!("CREATE DATABASE \"{old}\" TEMPLATE \"{made}\""),
        format!("REVOKE ALL ON DATABASE \"{old}\" FROM PUBLIC"),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let inside = connect(&world.space.server.with_database(&old)).await;
    // Its own admin has their password there, and the history is lost.
    let sql = "UPDATE staff SET password_hash = $1 WHERE role = 'lab_admin'";
    inside.execute(sql, &[&hash]).await.unwrap();
    inside
        .batch_execute("DROP TABLE refinery_schema_history")
        .await
        .unwrap();

    let body = json!({ "database": old, "slug": "acme-two" });
    let refused = d
        .post(operator, "/api/v1/tenants/adopt", body.clone())
        .await
        .expect(422);
    assert!(
        refused["detail"].as_str().unwrap().contains("which exists"),
        "its profile names a laboratory that lives: {refused}"
    );
    d.post(
        operator,
        &format!("/api/v1/tenants/{}/offboard", lab.id),
        crate::support::at_once("acme-lab"),
    )
    .await
    .expect(202);
    testkit::eventually("the first one to be gone", crate::support::LIMIT, async || {
        d.get(operator, &format!("/api/v1/tenants/{}", lab.id))
            .await
            .status
            == 404
    })
    .await;

    let asked = d.post(operator, "/api/v1/tenants/adopt", body).await;
    let location = asked.header("location").to_owned();
    assert_eq!(
        asked.expect(202)["tenantId"],
        json!(lab.id),
        "the id in its profile"
    );
    let operation = finished(d, operator, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    for name in ["admin", "receptionist", "technician", "supervisor"] {
        let token = d.log_in(&Lab::email("acme-lab", name), Some("acme-two")).await;
        let me = d.get(&token, "/api/v1/me").await.expect(200);
        assert_eq!(me["tenantId"], json!(lab.id), "{me}");
    }
    let admin = d.log_in(&Lab::email("acme-lab", "admin"), None).await;
    let staff = d.get(&admin, "/api/v1/staff").await.expect(200);
    assert_eq!(staff["items"].as_array().unwrap().len(), 5, "nobody was added");

    for (body, pointer) in [
        (json!({ "database": "postgres", "slug": "x-lab" }), "database"),
        (
            json!({ "database": "nothing_of_this_name", "slug": "x-lab" }),
            "database",
        ),
    ] {
        let refused = d.post(operator, "/api/v1/tenants/adopt", body).await.expect(422);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    world.stop().await;
}
