//! A laboratory whose database is gone though the registry has it.

use serde_json::json;

use crate::support::{World, connect, finished};

/// Neither the laboratory itself nor an operator gets a copy of it.
#[tokio::test]
async fn a_database_of_somebody_elses_is_exported_to_nobody_and_a_laboratory_without_any_is_forgotten() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let (d, ops) = (&world.server, &world.operator);
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let quoted = model::quote_ident(&database);
    let admin = connect(&world.space.server).await;
    let unmark = format!("COMMENT ON DATABASE {quoted} IS 'of another application'");
    admin.batch_execute(&unmark).await.unwrap();
    for (who, path) in [
        (&lab.admin, "/api/v1/exports/archive".to_owned()),
        (ops, format!("/api/v1/tenants/{}/export", lab.id)),
    ] {
        d.get(who, &path).await.refused(409, "illegal-transition");
    }
    let migrate = format!("/api/v1/tenants/{}/migrate", lab.id);
    d.post(ops, &migrate, json!({}))
        .await
        .refused(409, "precondition-unmet");

    let drop = format!("DROP DATABASE {quoted} WITH (FORCE)");
    admin.batch_execute(&drop).await.unwrap();
    let path = format!("/api/v1/tenants/{}/forget", lab.id);
    let body = json!({ "confirmSlug": "acme-lab" });
    d.post(ops, &path, body).await.refused(409, "illegal-transition");
    let body = json!({ "confirmSlug": "acme-lab", "withoutArchive": true });
    d.post(ops, &path, body).await.expect(200);
    world.stop().await;
}

#[tokio::test]
async fn a_laboratory_whose_database_is_gone_is_forgotten_and_its_archives_stay() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let (d, ops) = (&world.server, &world.operator);
    let path = format!("/api/v1/tenants/{}/forget", lab.id);
    let body = json!({ "confirmSlug": "acme-lab", "reason": "dropped by hand" });
    let there = d.post(ops, &path, body.clone()).await;
    there.refused(409, "illegal-transition");
    let asked = d
        .post(ops, &format!("/api/v1/tenants/{}/backups", lab.id), json!({}))
        .await;
    let backup = finished(d, ops, asked.header("location")).await;
    assert_eq!(backup["status"], "succeeded", "{backup}");
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let admin = connect(&world.space.server).await;
    let drop = format!("DROP DATABASE {} WITH (FORCE)", model::quote_ident(&database));
    admin.batch_execute(&drop).await.unwrap();

    let slip = d.post(ops, &path, json!({ "confirmSlug": "acme" })).await;
    assert_eq!(slip.expect(422)["errors"][0]["pointer"], "confirmSlug");
    d.post(&lab.admin, &path, body.clone())
        .await
        .refused(403, "wrong-audience");
    let gone = d.post(ops, &path, body.clone()).await.expect(200);
    assert_eq!(gone, json!({ "tenantId": lab.id, "slug": "acme-lab" }));
    d.post(ops, &path, body).await.refused(404, "unknown-tenant");
    d.get(ops, &format!("/api/v1/tenants/{}", lab.id))
        .await
        .refused(404, "unknown-tenant");
    let archives = d
        .get(ops, &format!("/api/v1/archives?tenantId={}", lab.id))
        .await
        .expect(200);
    assert_eq!(archives["items"].as_array().unwrap().len(), 1, "{archives}");
    world.stop().await;
}
