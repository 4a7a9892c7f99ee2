//! Taking over a database from the terminal.

use model::SchemaVersion;
use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_adopted_and_what_is_none_is_refused_with_the_way_on() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let name = format!("{}_old_demo", space.namespace.as_str());
    let limit = std::time::Duration::from_secs(30);
    let server = pg::connect(&space.server, "test", limit).await.unwrap();
    for sql in [
        format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'"),
        format!("REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC"),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let target = space.server.with_database(&name);
    let mut inside = pg::connect(&target, "test", limit).await.unwrap();
    migrator::migrate_scratch(&mut inside, &target, SchemaVersion::new(6))
        .await
        .unwrap();
    inside
        .batch_execute("DROP TABLE refinery_schema_history")
        .await
        .unwrap();

    let adopt = ["adopt", "--slug", "demo", "--database"];
    let with = |rest: &[&'static str], name: &str| -> Vec<String> {
        let head = adopt.iter().map(|word| (*word).to_owned());
        let rest = rest.iter().map(|word| (*word).to_owned());
        head.chain([name.to_owned()]).chain(rest).collect()
    };
    let run = |args: Vec<String>| ctl.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = run(with(&[], "no_such_database")).expect(4);
    assert!(
        said.stderr.contains("has no database no_such_database"),
        "{said:?}"
    );
    let said = run(with(&[], &space.registry.database)).expect(5);
    assert!(said.stderr.contains("it is the registry"), "{said:?}");
    let said = run(with(&[], &name)).expect(2);
    assert!(said.stderr.contains("name the person"), "{said:?}");
    let said = run(with(&["--admin-email", "ada@demo.example"], &name)).expect(2);
    assert!(said.stderr.contains("give a password"), "{said:?}");

    let args = with(
        &[
            "--admin-email",
            "ada@demo.example",
            "--admin-password-stdin",
            "--json",
        ],
        &name,
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let made = ctl.typed(&args, "a long pass phrase\n").expect(0).json();
    assert_eq!(made["tenant"]["status"], "active", "{made}");
    assert_eq!(made["tenant"]["database"], name.as_str());
    let operation = made["operation"]["id"].as_str().unwrap();
    let shown = ctl.json(0, &["operations", "show", operation]).to_string();
    assert!(shown.contains(r#""by":"what is there","version":6"#), "{shown}");
    let said = run(with(&[], &name)).expect(5);
    assert!(said.stderr.contains("taken"), "{said:?}");
}
