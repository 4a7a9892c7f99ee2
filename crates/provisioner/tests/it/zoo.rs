//! Everything that a database may contain beside tables: what a backup carries over, what it leaves out by
//! name, and what is refused before a laboratory is closed.

use embedded::{Cluster, ThrowawayOptions};
use model::{OperationId, Slug, Step, TenantState};
use provisioner::{FindingKind, ProvisionError, RestoreAs};
use registry::Tenant;
use serde_json::Value;
use testkit::Space;

use crate::{
    archive::failure,
    harness::{Harness, NOW, by, connect},
};

/// A server with all that a platform's administrator may have switched on.
async fn server() -> Cluster {
    let parameters = [
        ("max_prepared_transactions", "8"),
        ("wal_level", "logical"),
        ("allow_in_place_tablespaces", "on"),
    ];
    let options = ThrowawayOptions {
        bin: testkit::pg_bin(),
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..ThrowawayOptions::default()
    };
    Cluster::start_throwaway(options).await.unwrap()
}

async fn rig_on(cluster: &Cluster) -> Harness {
    Harness::within(Space::on(cluster.target().clone()).await, |_| {}).await
}

/// One of everything, owned by a role of its own where a role can own it.
fn one_of_everything(role: &str) -> String {
    format!(
        r#"CREATE SCHEMA zoo AUTHORIZATION {role};
        SET search_path = zoo, public;
        CREATE TABLE parent (id int NOT NULL, at date NOT NULL, v text) PARTITION BY RANGE (at);
        CREATE TABLE child PARTITION OF parent FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        CREATE TABLE rest PARTITION OF parent DEFAULT;
        INSERT INTO parent VALUES (1, '2025-02-03', 'a'), (2, '2030-01-01', 'b');
        CREATE UNLOGGED TABLE quick (id int);
        INSERT INTO quick VALUES (1);
        CREATE MATERIALIZED VIEW empty AS SELECT * FROM parent WITH NO DATA;
        CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS n, now() AS at FROM parent;
        INSERT INTO parent VALUES (3, '2025-03-03', 'c');
        CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE span AS RANGE (subtype = numeric);
        CREATE TYPE pair AS (a int, b text);
        CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
        CREATE FUNCTION powerful() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
        CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
        CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int);
        CREATE OPERATOR <+> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
        CREATE FUNCTION pair_text(pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.b';
        CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair) AS ASSIGNMENT;
        CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple);
        CREATE TEXT SEARCH CONFIGURATION search (COPY = simple);
        CREATE STATISTICS both_columns ON id, at FROM child;
        CREATE TABLE guarded (id int PRIMARY KEY, word text COLLATE german, n int GENERATED ALWAYS AS (id * 2) STORED);
        CREATE RULE quiet AS ON DELETE TO guarded DO INSTEAD NOTHING;
        ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON guarded TO {role} USING (id > 0);
        COMMENT ON TABLE guarded IS 'it''s guarded';
        CREATE TABLE elsewhere (id int) TABLESPACE nearby;
        CREATE FOREIGN DATA WRAPPER nowhere;
        CREATE SERVER far FOREIGN DATA WRAPPER nowhere OPTIONS (host 'far.example');
        CREATE USER MAPPING FOR {role} SERVER far OPTIONS (user 'u', password 'sesame');
        CREATE FOREIGN TABLE distant (id int) SERVER far;
        SELECT lo_create(4711);
        SELECT lo_put(4711, 0, 'large');
        GRANT SELECT ON LARGE OBJECT 4711 TO {role};
        CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN IF tg_tag IN (''ALTER TYPE'', ''ALTER MATERIALIZED VIEW'') THEN RAISE ''no changes here''; END IF; END';
        CREATE PUBLICATION news FOR TABLE guarded;
        GRANT SELECT (id) ON guarded TO {role};
        ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA zoo GRANT SELECT ON TABLES TO PUBLIC;
        ALTER TABLE parent OWNER TO {role};
        ALTER FUNCTION powerful() OWNER TO {role};
        ALTER MATERIALIZED VIEW stale OWNER TO {role};
        ALTER TYPE span OWNER TO {role};
        GRANT SELECT ON parent TO CURRENT_USER;
        CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION seen();"#
    )
}

async fn saw(harness: &Harness, operation: OperationId, step: Step) -> Value {
    let client = harness.registry.client().await.unwrap();
    let steps = registry::steps_of(&client, operation).await.unwrap();
    let row = steps.into_iter().find(|row| row.step == step).unwrap();
    row.saw.unwrap_or_default()
}

/// Who owns what that does not belong to the administrator, and who may do what.
async fn owners_and_rights(harness: &Harness, tenant: &Tenant) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', i.type, i.identity, d.deptype, pg_get_userbyid(d.refobjid))
           FROM pg_shdepend d, pg_identify_object(d.classid, d.objid, 0) i
          WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND d.refclassid = 'pg_authid'::regclass AND i.type NOT LIKE 'toast%' AND i.type <> 'policy' ORDER BY 1";
    let rows = harness.inside(tenant).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn one_of_everything_is_carried_over_or_listed_as_left_out() {
    let cluster = server().await;
    {
        let harness = rig_on(&cluster).await;
        let tenant = harness.provisioned("zoo").await;
        let role = model::quote_ident(&harness.named("keeper"));
        let admin = connect(&harness.space.server).await;
        admin.batch_execute(&format!("CREATE ROLE {role}")).await.unwrap();
        admin
            .batch_execute("CREATE TABLESPACE nearby LOCATION ''")
            .await
            .unwrap();
        let inside = harness.inside(&tenant).await;
        inside.batch_execute(&one_of_everything(&role)).await.unwrap();
        let before = owners_and_rights(&harness, &tenant).await;

        // A subscription would go on replicating in every copy: it is left out, and said to be.
        inside
            .batch_execute(
                "CREATE SUBSCRIPTION incoming CONNECTION 'host=far.example password=sesame' PUBLICATION p WITH (connect = false)",
            )
            .await
            .unwrap();
        drop(inside);
        let archive = harness.backed_up(&tenant).await;
        let manifest = archive.manifest.to_string();
        let left_out = archive.manifest["leftOut"]
            .as_array()
            .expect("what is left out")
            .clone();
        let left: Vec<&str> = left_out.iter().filter_map(|item| item["kind"].as_str()).collect();
        for kind in ["subscription", "materialized view", "foreign table"] {
            assert!(left.contains(&kind), "{kind}: {left_out:?}");
        }
        assert!(!manifest.contains("sesame"), "no passwords");

        let inside = harness.inside(&tenant).await;
        inside
            .batch_execute("ALTER SUBSCRIPTION incoming SET (slot_name = NONE); DROP SUBSCRIPTION incoming")
            .await
            .unwrap();
        drop(inside);
        let (_, operation) = harness
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.serves(tenant.id).await);
        assert_eq!(owners_and_rights(&harness, &tenant).await, before);
        let inside = harness.inside(&tenant).await;
        let row = inside
            .query_one(
                "SELECT (SELECT count(*) FROM zoo.parent), (SELECT relispopulated FROM pg_class WHERE oid = 'zoo.empty'::regclass),
                        (SELECT count(*) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())),
                        convert_from(lo_get(4711), 'UTF8'), zoo.powerful() <> current_user,
                        (SELECT n FROM zoo.stale), (SELECT evtenabled::text FROM pg_event_trigger)",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, i64>(2)),
            (3, false, 0)
        );
        assert_eq!((row.get::<_, &str>(3), row.get::<_, bool>(4)), ("large", true));
        assert_eq!((row.get::<_, i64>(5), row.get::<_, &str>(6)), (3, "O"));
        drop(inside);

        let removed = harness.removed(&tenant).await;
        let back = RestoreAs::default();
        let (tenant, operation) = harness
            .provisioner
            .request_restore(removed.id, back, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(owners_and_rights(&harness, &tenant).await, before);
        assert!(harness.serves(tenant.id).await);
        harness.removed(&tenant).await;
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn rights_of_a_role_that_is_gone_are_left_out_and_named_and_all_others_are_kept() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("roles").await;
    let (gone, kept) = (harness.named("gone; to \"you\""), harness.named("kept"));
    let (gone_q, kept_q) = (model::quote_ident(&gone), model::quote_ident(&kept));
    let admin = connect(&harness.space.server).await;
    admin
        .batch_execute(&format!("CREATE ROLE {gone_q}; CREATE ROLE {kept_q}"))
        .await
        .unwrap();
    let inside = harness.inside(&tenant).await;
    inside
        .batch_execute(&format!(
            "GRANT SELECT ON staff TO {gone_q}; GRANT SELECT, UPDATE ON staff TO {kept_q};
             GRANT USAGE ON SCHEMA public TO {gone_q}, {kept_q};
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {gone_q};
             CREATE TABLE theirs (id int); ALTER TABLE theirs OWNER TO {gone_q};
             CREATE TABLE ours (id int); ALTER TABLE ours OWNER TO {kept_q}"
        ))
        .await
        .unwrap();
    let archive = harness.backed_up(&tenant).await;
    inside
        .batch_execute(&format!("DROP OWNED BY {gone_q}; DROP ROLE {gone_q}"))
        .await
        .unwrap();
    drop(inside);
    let (_, verifying) = harness
        .provisioner
        .request_verify_archive(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(verifying, |_| {}).await.unwrap();

    // It is said before anything is asked for.
    let lost = harness.provisioner.not_kept(&archive, None, true).await.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(
        lost[0].contains("gone; to") && lost[0].contains("1 objects"),
        "{lost:?}"
    );

    let beside = RestoreAs {
        slug: Some(Slug::parse("roles-copy").unwrap()),
        server: None,
    };
    let (copy, operation) = harness
        .provisioner
        .request_restore(archive.id, beside, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(copy.id).await);
    let reported = saw(&harness, operation, Step::RestoreDatabase).await.to_string();
    assert!(reported.contains("gone; to"), "{reported}");
    let row = harness
        .inside(&copy)
        .await
        .query_one(
            "SELECT has_table_privilege($1, 'staff', 'UPDATE'), has_schema_privilege($1, 'public', 'USAGE'),
                    pg_get_userbyid((SELECT relowner FROM pg_class WHERE relname = 'ours'))::text",
            &[&kept],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (true, true, kept.clone()));

    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(tenant.id).await);
    for one in [&tenant, &copy] {
        harness
            .inside(one)
            .await
            .batch_execute(&format!("DROP OWNED BY {kept_q}"))
            .await
            .unwrap();
    }
    admin.batch_execute(&format!("DROP ROLE {kept_q}")).await.unwrap();
}

fn refusal(outcome: Result<impl std::fmt::Debug, ProvisionError>) -> String {
    match outcome {
        Err(error @ ProvisionError::Unmet { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_keeps_a_database_from_being_dropped_is_named_before_its_laboratory_is_closed() {
    let cluster = server().await;
    {
        let harness = rig_on(&cluster).await;
        let tenant = harness.provisioned("held").await;
        let archive = harness.backed_up(&tenant).await;
        let inside = harness.inside(&tenant).await;
        let subscribe = "CREATE SUBSCRIPTION incoming CONNECTION 'host=far.example password=sesame' PUBLICATION p WITH (connect = false)";
        let end_subscription =
            "ALTER SUBSCRIPTION incoming SET (slot_name = NONE); DROP SUBSCRIPTION incoming";
        for (make, signs, end) in [
            (
                "BEGIN; INSERT INTO staff (id, display_name, email, role) VALUES (gen_random_uuid(), 'P', 'p@x.example', 'technician'); PREPARE TRANSACTION 'it''s mine'",
                ["'it''s mine' was prepared by", "ROLLBACK PREPARED 'it''s mine'"],
                "ROLLBACK PREPARED 'it''s mine'",
            ),
            (
                subscribe,
                ["subscription incoming", "DROP SUBSCRIPTION incoming"],
                end_subscription,
            ),
        ] {
            inside.batch_execute(make).await.unwrap();
            let offboard = refusal(harness.provisioner.request_offboard(tenant.id, NOW, by()).await);
            let restore = refusal(
                harness
                    .provisioner
                    .request_restore_in_place(archive.id, by())
                    .await,
            );
            for reported in [&offboard, &restore] {
                assert!(signs.iter().all(|sign| reported.contains(sign)), "{reported}");
                assert!(!reported.contains("sesame"), "{reported}");
            }
            assert_eq!(
                harness.tenant(tenant.id).await.unwrap().status,
                TenantState::Active
            );
            assert!(harness.serves(tenant.id).await);
            // A backup does without, and says so.
            let archive = harness.backed_up(&tenant).await;
            let left_out = archive.manifest["leftOut"].to_string();
            assert!(
                left_out.contains("incoming") || left_out.contains("it's mine"),
                "{left_out}"
            );
            inside.batch_execute(end).await.unwrap();
        }
        drop(inside);
        harness.removed(&tenant).await;
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_prepared_late_is_named_and_can_still_be_ended() {
    let cluster = server().await;
    {
        let harness = Harness::within(Space::on(cluster.target().clone()).await, |config| {
            config.bounds.attempts_max = 2;
        })
        .await;
        let tenant = harness.provisioned("late").await;
        let hour = std::time::Duration::from_secs(3600);
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, hour, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.ok();
        let inside = harness.inside(&tenant).await;
        inside
            .batch_execute("BEGIN; CREATE TEMPORARY TABLE x (); ROLLBACK; BEGIN; LOCK TABLE staff IN ACCESS SHARE MODE; PREPARE TRANSACTION 'late'")
            .await
            .unwrap();
        drop(inside);
        harness.provisioner.end_grace(operation, by()).await.unwrap();
        let error = failure(&harness, operation).await;
        assert!(error.contains("ROLLBACK PREPARED 'late'"), "{error}");
        // Whoever is to end it gets in.
        harness
            .inside(&tenant)
            .await
            .batch_execute("ROLLBACK PREPARED 'late'")
            .await
            .unwrap();
        harness.provisioner.reopen(operation, by()).await.unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.tenant(tenant.id).await.is_none());
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_scratch_copy_with_a_subscription_is_dropped_by_the_doctor() {
    let harness = Harness::new().await;
    let scratch = harness.space.namespace.scratch_database(OperationId::generate());
    let admin = connect(&harness.space.server).await;
    admin
        .batch_execute(&format!("CREATE DATABASE {scratch}"))
        .await
        .unwrap();
    admin
        .batch_execute(&format!("REVOKE ALL ON DATABASE {scratch} FROM PUBLIC"))
        .await
        .unwrap();
    let inside = connect(&harness.space.server.with_database(scratch.as_str())).await;
    inside
        .batch_execute("CREATE SUBSCRIPTION \"in; coming\" CONNECTION 'host=far.example' PUBLICATION p WITH (connect = false)")
        .await
        .unwrap();
    drop(inside);
    let report = harness.provisioner.fix(false, by()).await.unwrap();
    let found = report
        .findings
        .iter()
        .find(|f| f.kind == FindingKind::ScratchLeft)
        .unwrap();
    assert!(found.fixed, "{found:#?}");
    assert!(!harness.leftovers().await.contains(&scratch.as_str().to_owned()));
}

#[tokio::test]
async fn errors_of_the_server_have_its_detail_and_hint_but_no_values_of_rows() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("detail").await;
    let inside = harness.inside(&tenant).await;
    let role = model::quote_ident(&harness.named("owner"));
    let failed = async |sql: &str| pg::describe(&inside.batch_execute(sql).await.unwrap_err());
    inside
        .batch_execute(&format!("CREATE ROLE {role}; GRANT SELECT ON staff TO {role}"))
        .await
        .unwrap();
    let reported = failed(&format!("DROP ROLE {role}")).await;
    assert!(reported.contains("detail: privileges for table"), "{reported}");
    inside
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await
        .unwrap();
    let reported = failed("SELECT no_such(1::int)").await;
    assert!(reported.contains("hint: No function matches"), "{reported}");
    inside
        .batch_execute("CREATE TABLE secrets (id text PRIMARY KEY, n int CHECK (n > 0)); INSERT INTO secrets VALUES ('Ada', 1)")
        .await
        .unwrap();
    for sql in [
        "INSERT INTO secrets VALUES ('Ada', 1)",
        "INSERT INTO secrets VALUES ('Ada Lovelace', -1)",
        "DO $$ BEGIN RAISE 'no' USING DETAIL = 'Ada'; END $$",
    ] {
        let reported = failed(sql).await;
        assert!(!reported.contains("Ada"), "{reported}");
    }
}
