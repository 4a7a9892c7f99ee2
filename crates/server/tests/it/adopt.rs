//! A laboratory that was run without us is taken over, and its people log in as before.

use serde_json::json;

use crate::support::{Lab, World, connect, finished};

#[tokio::test]
async fn people_of_an_adopted_laboratory_keep_their_passwords() {
    let world = World::start().await;
    let (d, operator) = (&world.server, &world.operator);
    // What another installation has made: a laboratory with people, of which nothing but its database is left.
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
