use futures_util::future::join_all;
use migrator::{MigrateError, template_ensure};
use testkit::Space;

use crate::{
    databases::{admin, count},
    witness::Witness,
};

#[tokio::test]
async fn eight_callers_at_once_get_one_sealed_template() {
    let space = Space::new().await;
    let names = join_all((0..8).map(|_| template_ensure(&space.server, &space.namespace))).await;
    let names: Vec<_> = names.into_iter().map(Result::unwrap).collect();
    assert!(names.iter().all(|name| *name == names[0]));

    let client = admin(&space.server).await;
    let row = client
        .query_one(
            "SELECT datistemplate, datallowconn,
                    EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)
               FROM pg_database WHERE datname = $1",
            &[&names[0].as_str()],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (true, false, false));
    // Nobody has a right in it: what a laboratory's role may do is granted in the laboratory's own database.
    let sql = "SELECT count(*) FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
                WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'a' AND d.datname = $1";
    assert_eq!(count(&client, sql, names[0].as_str()).await, 0);

    let refused = pg::connect(
        &space.server.with_database(names[0].as_str()),
        "test",
        std::time::Duration::from_secs(10),
    )
    .await;
    assert!(refused.is_err(), "a sealed template lets nobody in");
}

/// A laboratory's role that got in once would stay in, whatever is revoked later.
#[tokio::test]
async fn a_template_is_open_to_everybody_at_no_moment_of_its_making() {
    let space = Space::new().await;
    let question = format!(
        "SELECT datname FROM pg_database d
          WHERE starts_with(datname::text, '{}_template') AND datallowconn
            AND EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)",
        space.namespace.as_str()
    );
    let witness = Witness::asking(&space.server, question).await;
    template_ensure(&witness.target, &space.namespace).await.unwrap();
    let (looks, found_open) = witness.saw();
    assert!(looks > 10, "every message was preceded by a look: {looks}");
    assert_eq!(found_open, 0);
}

/// What a builder leaves that was killed at any point before the rename: the database under its working name,
/// in one of these states.
#[tokio::test]
async fn whatever_a_killed_builder_left_is_dropped_and_built_anew() {
    let space = Space::new().await;
    let client = admin(&space.server).await;
    let building = space.namespace.template_under_construction();
    for leftover in [
        "ALLOW_CONNECTIONS true",
        "ALLOW_CONNECTIONS false",
        "ALLOW_CONNECTIONS false IS_TEMPLATE true",
    ] {
        client
            .batch_execute(&format!("CREATE DATABASE {building} TEMPLATE template0"))
            .await
            .unwrap();
        client
            .batch_execute(&format!("ALTER DATABASE {building} WITH {leftover}"))
            .await
            .unwrap();
        let name = template_ensure(&space.server, &space.namespace).await.unwrap();
        let of_name = "SELECT count(*) FROM pg_database WHERE datname = $1";
        assert_eq!(count(&client, of_name, building.as_str()).await, 0, "{leftover}");
        assert_eq!(count(&client, of_name, name.as_str()).await, 1, "{leftover}");
        client
            .batch_execute(&format!("ALTER DATABASE {name} WITH IS_TEMPLATE false"))
            .await
            .unwrap();
        client
            .batch_execute(&format!("DROP DATABASE {name}"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_killed_builders_backend_that_still_works_does_not_stop_the_next() {
    let space = Space::new().await;
    let client = admin(&space.server).await;
    let building = space.namespace.template_under_construction();
    client
        .batch_execute(&format!("CREATE DATABASE {building}"))
        .await
        .unwrap();
    let busy = admin(&space.server.with_database(building.as_str())).await;
    let working = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(600)").await });
    template_ensure(&space.server, &space.namespace).await.unwrap();
    assert!(working.await.unwrap().is_err(), "its session was ended");
}

#[tokio::test]
async fn an_opened_template_is_not_trusted_and_superseded_ones_go_but_newer_ones_stay() {
    let space = Space::new().await;
    let client = admin(&space.server).await;
    let latest = migrator::latest();
    let newer = model::SchemaVersion::new(latest.number() + 1);
    let other = space.namespace.template_database(latest, &"0".repeat(12));
    let newer = space.namespace.template_database(newer, &"0".repeat(12));
    for name in [&other, &newer] {
        client
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE template0 IS_TEMPLATE true ALLOW_CONNECTIONS false"
            ))
            .await
            .unwrap();
    }
    let name = template_ensure(&space.server, &space.namespace).await.unwrap();
    let of_name = "SELECT count(*) FROM pg_database WHERE datname = $1";
    assert_eq!(count(&client, of_name, other.as_str()).await, 0);
    assert_eq!(count(&client, of_name, newer.as_str()).await, 1);

    client
        .batch_execute(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        .await
        .unwrap();
    let opened = admin(&space.server.with_database(name.as_str())).await;
    opened
        .batch_execute("CREATE TABLE public.stray ()")
        .await
        .unwrap();
    drop(opened);
    template_ensure(&space.server, &space.namespace).await.unwrap();
    client
        .batch_execute(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        .await
        .unwrap();
    let inside = admin(&space.server.with_database(name.as_str())).await;
    let stray = inside
        .query_one("SELECT to_regclass('public.stray') IS NULL", &[])
        .await
        .unwrap();
    assert!(stray.get::<_, bool>(0), "it was made anew");
    drop(inside);
    client
        .batch_execute(&format!("ALTER DATABASE {newer} WITH IS_TEMPLATE false"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_out_of_reach_is_named_and_may_be_tried_again() {
    let space = Space::new().await;
    let mut nowhere = space.server.clone();
    nowhere.port = 1;
    let error = template_ensure(&nowhere, &space.namespace).await.unwrap_err();
    assert!(matches!(error, MigrateError::Connect(_)) && error.is_transient());
    assert!(error.to_string().contains(":1/postgres"), "{error}");
}
