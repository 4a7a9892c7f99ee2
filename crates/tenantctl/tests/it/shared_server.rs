//! On a server that others use, too, and on one that is not as it should be: what is said, when, and with
//! which exit code.

use embedded::{Cluster, ThrowawayOptions};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use testkit::Space;

use crate::ctl::Ctl;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A PostgreSQL that was there before, with roles of others.
pub(crate) struct Existing {
    cluster: Cluster,
    dir: TempDir,
}

impl Existing {
    pub(crate) async fn start() -> Self {
        let options = ThrowawayOptions {
            bin: testkit::pg_bin(),
            ..ThrowawayOptions::default()
        };
        let existing = Self {
            cluster: Cluster::start_throwaway(options).await.unwrap(),
            dir: TempDir::new().unwrap(),
        };
        existing
            .run("CREATE ROLE monitoring LOGIN PASSWORD 'sees-everything'; CREATE ROLE \"De ployer\" LOGIN CREATEROLE")
            .await;
        existing
    }

    pub(crate) async fn run(&self, sql: &str) {
        let client = pg::connect(self.cluster.target(), "test", LIMIT).await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    pub(crate) fn ctl(&self) -> Ctl {
        let target = self.cluster.target();
        Ctl::bare(self.dir.path())
            .with("MASTER_PGHOST", &target.host)
            .with("MASTER_PGPORT", &target.port.to_string())
            .with("MASTER_PGUSER", &target.user)
            .with("MASTER_PGPASSWORD", target.password.expose_secret())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_closing_the_shared_databases_shuts_out_is_said_before_it_is_done() {
    let existing = Existing::start().await;
    let ctl = existing.ctl();
    let said = ctl.run(&["up", "--no-serve", "--close-shared"]).expect(0);
    let at = |part: &str| {
        let found = said.stderr.find(part);
        found.unwrap_or_else(|| panic!("{part}: {said:?}"))
    };
    for part in [
        "monitoring",
        "De ployer",
        "GRANT CONNECT ON DATABASE \"postgres\" TO \"De ployer\", \"monitoring\"",
    ] {
        assert!(at(part) < at("closed to PUBLIC: "), "{said:?}");
    }
    // Again, nobody is left to be shut out.
    let said = ctl.run(&["up", "--no-serve", "--close-shared"]).expect(0);
    assert!(!said.stderr.contains("GRANT CONNECT"), "{said:?}");
}

/// Up to PostgreSQL 15 a role with CREATEROLE can grant itself a laboratory's role.
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_could_let_themselves_into_every_laboratory_are_named_and_are_no_failure() {
    let existing = Existing::start().await;
    let version: i32 = pg::connect(existing.cluster.target(), "test", LIMIT)
        .await
        .unwrap()
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .await
        .unwrap()
        .get(0);
    let ctl = existing.ctl();
    let up = ctl.run(&["up", "--no-serve"]).expect(0);
    let doctor = ctl.run(&["doctor", "--deep"]).expect(0);
    let document = ctl.json(0, &["doctor"]);
    for said in [&up, &doctor] {
        let named = said.stderr.contains("CREATEROLE") && said.stderr.contains("De ployer");
        assert_eq!(named, version < 160_000, "{said:?}");
    }
    if version < 160_000 {
        assert_eq!(document["roleCreators"][0]["role"], "De ployer", "{document}");
    }
    assert_eq!(document["findings"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_said_once_and_in_words() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    let database = model::quote_ident(&space.registry.database);
    server
        .batch_execute(&format!(
            "ALTER DATABASE {database} SET default_transaction_read_only = on"
        ))
        .await
        .unwrap();
    for args in [
        &["backup", "acme-lab"][..],
        &["suspend", "acme-lab"],
        &["offboard", "acme-lab", "--yes"],
        &["operator", "create", "--email", "o@example.org"],
        &["up", "--no-serve"],
    ] {
        let said = ctl.run(args).expect(6);
        assert!(said.stderr.contains("takes no writes"), "{args:?}: {said:?}");
        assert!(
            said.stderr.contains("default_transaction_read_only"),
            "{args:?}: {said:?}"
        );
        assert_eq!(said.stderr.matches("25006").count(), 1, "{args:?}: {said:?}");
        assert!(!said.stderr.contains("cannot execute"), "{args:?}: {said:?}");
        assert!(!said.stderr.contains("db error"), "{args:?}: {said:?}");
    }
    ctl.run(&["list"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_that_is_empty_is_named() {
    let space = Space::new().await;
    let path = space.dir().join("secret");
    for text in ["", "\n"] {
        std::fs::write(&path, text).unwrap();
        let file = path.display().to_string();
        let mut ctl = Ctl::on(&space).with("MASTER_PGPASSWORD_FILE", &file);
        ctl = ctl.without("MASTER_PGPASSWORD");
        let said = ctl.run(&["list"]).expect(2);
        assert!(
            said.stderr.contains(&file)
                && said.stderr.contains("MASTER_PGPASSWORD_FILE")
                && said.stderr.contains("empty"),
            "{said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_laboratory_is_refused_before_anything_is_made() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let name = format!("{}_crm", space.namespace.as_str());
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    server
        .batch_execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0"))
        .await
        .unwrap();
    let inside = pg::connect(&space.server.with_database(&name), "test", LIMIT)
        .await
        .unwrap();
    inside
        .batch_execute("CREATE TABLE customer (id int); CREATE TABLE operations (id int)")
        .await
        .unwrap();
    let adopt = ["adopt", "--database", &name, "--slug", "crm"];
    let invite = ["--invite", "--admin-email", "ada@example.org"];
    for args in [adopt.to_vec(), [&adopt[..], &invite].concat()] {
        let said = ctl.run(&args).expect(5);
        assert!(
            said.stderr.contains("none of a laboratory's tables") && !said.stderr.contains("retry"),
            "{said:?}"
        );
    }
    let listed = ctl.json(0, &["operations", "list"]);
    assert_eq!(listed["operations"], serde_json::json!([]));
    // What has a version half is found by comparing, and no role is made for it either.
    inside
        .batch_execute(
            "CREATE TABLE lab_profile (tenant_id uuid, name text, tz text); CREATE TABLE staff (id uuid)",
        )
        .await
        .unwrap();
    let said = ctl.run(&[&adopt[..], &invite].concat()).expect(5);
    assert!(!said.stderr.contains("retry"), "{said:?}");
    let listed = ctl.json(0, &["operations", "list"]);
    assert_eq!(listed["operations"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_up_does_not_say_that_it_goes_on() {
    let space = Space::new().await;
    let role = format!("{}_modest", space.namespace.as_str());
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    server
        .batch_execute(&format!(
            "CREATE ROLE \"{role}\" LOGIN CREATEDB PASSWORD 'modest-but-here';
             GRANT CONNECT ON DATABASE postgres TO \"{role}\""
        ))
        .await
        .unwrap();
    let ctl = Ctl::on(&space)
        .with("MASTER_PGUSER", &role)
        .with("MASTER_PGPASSWORD", "modest-but-here");
    let said = ctl.run(&["up", "--no-serve"]).expect(5);
    assert!(said.stderr.contains("Nothing was changed"), "{said:?}");
    assert!(!said.stderr.contains("goes on from there"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_server_that_is_another_one_is_a_conflict() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let existing = Existing::start().await;
    let other = existing.cluster.target();
    let mispointed = ctl
        .with("TENANT_PGHOST", &other.host)
        .with("TENANT_PGPORT", &other.port.to_string())
        .with("TENANT_PGUSER", &other.user)
        .with("TENANT_PGPASSWORD", other.password.expose_secret());
    let said = mispointed.run(&["up", "--no-serve"]).expect(5);
    assert!(said.stderr.contains("acme-lab"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_of_a_fix_counts_what_was_found_and_what_was_fixed() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let name = format!("{}_tenant_acme-lab", space.namespace.as_str());
    let role = model::quote_ident(&name);
    let outsider = model::quote_ident(&format!("{}_outsider", space.namespace.as_str()));
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    server
        .batch_execute(&format!(
            "ALTER ROLE {role} NOLOGIN; CREATE ROLE {outsider}; GRANT CONNECT ON DATABASE {role} TO PUBLIC;
             ALTER ROLE {role} CONNECTION LIMIT 1"
        ))
        .await
        .unwrap();
    let said = ctl.run(&["doctor", "--deep"]).expect(3);
    assert!(said.stderr.contains("3 findings"), "{said:?}");
    let said = ctl.run(&["doctor", "--deep", "--fix"]).expect(0);
    assert!(said.stderr.contains("3 findings, 3 fixed, 0 left"), "{said:?}");
    let open = format!("{name} (CONNECT");
    assert!(
        !said.stderr.contains(&open),
        "what was closed is not open any more: {said:?}"
    );
    // The role makes itself unusable again, as an administrator's script might.
    server
        .batch_execute(&format!("GRANT {outsider} TO {role}; ALTER ROLE {role} NOLOGIN"))
        .await
        .unwrap();
    let said = ctl.run(&["doctor", "--deep", "--fix"]).expect(3);
    assert!(said.stderr.contains("2 findings, 1 fixed, 1 left"), "{said:?}");
    assert!(said.stderr.contains("1 finding is left"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_renamed_by_hand_is_named_by_whatever_needs_it() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let name = format!("{}_tenant_acme-lab", space.namespace.as_str());
    let aside = format!("{}_aside", space.namespace.as_str());
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    server
        .batch_execute(&format!("ALTER DATABASE \"{name}\" RENAME TO \"{aside}\""))
        .await
        .unwrap();
    for args in [
        &["backup", "acme-lab"][..],
        &["export", "acme-lab", "--output", "/nonexistent/out.zip"],
        &["offboard", "acme-lab", "--yes"],
    ] {
        let said = ctl.run(args);
        assert!(said.code != 0, "{args:?}: {said:?}");
        if args[0] != "export" {
            assert!(
                said.stderr
                    .contains(&format!("ALTER DATABASE {aside} RENAME TO \"{name}\"")),
                "{args:?}: {said:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_log_ins_can_be_listed() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let said = ctl.run(&["refusals"]).expect(0);
    assert!(said.stderr.contains("no log-in was refused"), "{said:?}");
    let tenant = ctl.provision("acme-lab")["tenant"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let registry = pg::connect(&space.registry, "test", LIMIT).await.unwrap();
    registry
        .batch_execute(&format!(
            "INSERT INTO login_refusals (since, audience, reason, tenant_id, email, client, refusals) VALUES
                 (date_trunc('hour', clock_timestamp()), 'lab', 'credentials-wrong', '{tenant}', 'ada@example.org', '192.0.2.7', 12),
                 (date_trunc('hour', clock_timestamp()) - interval '2 hours', 'operator', 'credentials-wrong', NULL, NULL, NULL, 3)"
        ))
        .await
        .unwrap();
    let said = ctl.run(&["refusals"]).expect(0);
    for part in ["ada@example.org", "192.0.2.7", "12", "acme-lab", "operator"] {
        assert!(said.stdout.contains(part), "{part}: {said:?}");
    }
    let document = ctl.json(0, &["refusals", "--tenant", "acme-lab"]);
    let refusals = document["refusals"].as_array().unwrap();
    assert_eq!(refusals.len(), 1, "{document}");
    assert_eq!(refusals[0]["refusals"], 12);
    assert_eq!(refusals[0]["tenant"], "acme-lab");
    assert_eq!(refusals[0]["email"], "ada@example.org");
}

/// A database that is others' is neither made a registry of nor closed to them.
#[tokio::test(flavor = "multi_thread")]
async fn databases_of_others_are_no_registry_and_stay_as_they_are() {
    let existing = Existing::start().await;
    existing.run("CREATE DATABASE openapp OWNER monitoring").await;
    existing.run("CREATE DATABASE \"by the DBA\"").await;
    for (name, statement) in [
        ("postgres", "MASTER_PGDATABASE"),
        ("template0", "MASTER_PGDATABASE"),
        ("template1", "MASTER_PGDATABASE"),
        ("openapp", "ALTER DATABASE openapp OWNER TO"),
    ] {
        let ctl = existing.ctl().with("MASTER_PGDATABASE", name);
        let said = ctl.run(&["up", "--no-serve"]).expect(5);
        let expected = said.stderr.contains(statement) && said.stderr.contains("Nothing was changed");
        assert!(expected, "{name}: {said:?}");
    }
    let target = existing.cluster.target();
    for name in ["postgres", "template1", "openapp"] {
        let client = pg::connect(&target.with_database(name), "test", LIMIT)
            .await
            .unwrap();
        let sql = "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'),
                          has_database_privilege('monitoring', current_database(), 'CONNECT')";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (0, true), "{name}");
    }
    // An empty one of the administrator's own is taken, and whom closing it shuts out is said before.
    let ctl = existing.ctl().with("MASTER_PGDATABASE", "by the DBA");
    let said = ctl.run(&["up", "--no-serve"]).expect(0);
    let at = |part: &str| {
        let found = said.stderr.find(part);
        found.unwrap_or_else(|| panic!("{part}: {said:?}"))
    };
    let grant = "GRANT CONNECT ON DATABASE \"by the DBA\" TO \"De ployer\", \"monitoring\"";
    assert!(at(grant) < at("closed to PUBLIC: "), "{said:?}");
    assert!(
        said.stderr.contains("stays open to every role: postgres"),
        "{said:?}"
    );
    // Whoever owns it later, what is a registry already stays one.
    existing
        .run("ALTER DATABASE \"by the DBA\" OWNER TO \"De ployer\"")
        .await;
    ctl.run(&["up", "--no-serve"]).expect(0);
}

/// An administrator's own settings say nothing of where the registry's and laboratories' tables are.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_of_the_administrators_changes_nothing() {
    let existing = Existing::start().await;
    existing
        .run("ALTER ROLE CURRENT_USER SET search_path = elsewhere")
        .await;
    let ctl = existing.ctl();
    ctl.run(&["up", "--no-serve"]).expect(0);
    ctl.provision("acme-lab");
    ctl.run(&["list"]).expect(0);
    ctl.run(&["backup", "acme-lab"]).expect(0);
    ctl.run(&["doctor", "--deep"]).expect(0);
}
