//! The doctor over the API says what it says in the terminal.

use crate::support::{World, connect};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_others_use_allows_is_told_and_is_no_finding() {
    let world = World::start().await;
    let role = format!("{}_deployer", world.space.namespace.as_str());
    let server = connect(&world.space.server).await;
    let sql = format!("CREATE ROLE \"{role}\" CREATEROLE");
    server.batch_execute(&sql).await.unwrap();
    let version = "SELECT current_setting('server_version_num')::int";
    let version: i32 = server.query_one(version, &[]).await.unwrap().get(0);
    let report = world
        .server
        .get(&world.operator, "/api/v1/doctor?deep=true")
        .await
        .expect(200);
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    let creators = report["roleCreators"].as_array().unwrap();
    let named = creators.iter().any(|creator| creator["role"] == role.as_str());
    assert_eq!(named, version < 160_000, "{report}");
    assert!(report["reachable"].is_array(), "{report}");
    world.stop().await;
}
