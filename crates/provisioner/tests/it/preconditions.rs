//! What an operation needs is looked at when it is asked for, before anything is changed; and what a restore
//! in place keeps.

use std::os::unix::fs::PermissionsExt;

use model::{OperationStatus, TenantState};
use provisioner::{FindingKind, ProvisionError};

use crate::{
    adopt::{Old, adopted},
    archive::{failure, files_in, programs_that},
    harness::{Harness, NOW, by, connect},
};

fn refusal(outcome: Result<impl std::fmt::Debug, ProvisionError>) -> String {
    match outcome {
        Err(ProvisionError::Interrupted { .. } | ProvisionError::Failed { .. }) | Ok(_) => {
            panic!("{outcome:?}")
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn without_fitting_client_programs_nothing_is_asked_for_and_the_doctor_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let programs = programs_that(dir.path(), "exec REAL \"$@\"", "exec REAL \"$@\"");
    let harness = Harness::with(|config| config.pg_bin = Some(programs)).await;
    let tenant = harness.provisioned("tools").await;
    let archive = harness.backed_up(&tenant).await;
    let old = dir.path().join("pg_dump");
    std::fs::write(&old, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let asked = [
        refusal(harness.provisioner.request_offboard(tenant.id, NOW, by()).await),
        refusal(harness.provisioner.request_backup(tenant.id, by()).await),
        refusal(
            harness
                .provisioner
                .request_restore_in_place(archive.id, by())
                .await,
        ),
        refusal(harness.provisioner.request_verify_archive(archive.id, by()).await),
    ];
    for reported in asked {
        assert!(
            reported.contains("PostgreSQL 9, older than the server") && reported.contains("TENANTRY_PG_BIN"),
            "{reported}"
        );
    }
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    assert!(harness.serves(tenant.id).await);
    let report = harness.provisioner.examine(false).await.unwrap();
    let found = report
        .findings
        .iter()
        .find(|finding| finding.kind.as_str() == "client_programs")
        .unwrap_or_else(|| panic!("{report:#?}"));
    assert!(found.seen.contains("older than the server"), "{found:#?}");
}

#[tokio::test]
async fn a_removal_that_has_nowhere_to_write_its_archive_closes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("archives");
    std::fs::write(&in_the_way, "a file").unwrap();
    let harness = Harness::with(|config| config.archive_dir.clone_from(&in_the_way)).await;
    let tenant = harness.provisioned("nowhere").await;
    let reported = refusal(harness.provisioner.request_offboard(tenant.id, NOW, by()).await);
    assert!(reported.contains("TENANTRY_ARCHIVE_DIR"), "{reported}");
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    let report = harness.provisioner.examine(false).await.unwrap();
    let reported = |kind: FindingKind| kind.as_str() == "archive_store";
    assert!(report.findings.iter().any(|f| reported(f.kind)), "{report:#?}");
}

#[tokio::test]
async fn an_administrator_whom_the_closed_database_would_lock_out_cannot_begin_a_removal() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("modest").await;
    let name = harness.named("modest_admin");
    let role = model::quote_ident(&name);
    let admin = connect(&harness.space.server).await;
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD 'modest';
             GRANT CONNECT ON DATABASE postgres TO {role};
             GRANT pg_read_all_data, pg_signal_backend TO {role}"
        ))
        .await
        .unwrap();
    let server = harness
        .space
        .server
        .with_user(&name, secrecy::SecretString::from("modest".to_owned()));
    let sealer = &harness.provisioner.config().sealer;
    crate::harness::register_server(&harness.registry, sealer, &server, "main").await;
    let reported = refusal(harness.provisioner.request_offboard(tenant.id, NOW, by()).await);
    assert!(
        reported.contains(&name) && reported.contains("SUPERUSER"),
        "{reported}"
    );
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    assert!(harness.serves(tenant.id).await);
    crate::harness::register_server(&harness.registry, sealer, &harness.space.server, "main").await;
}

#[tokio::test]
async fn a_backup_that_fails_leaves_no_file_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let fails = "case \" $* \" in *\" --dbname \"*) exit 3;; esac; exec REAL \"$@\"";
    let programs = programs_that(dir.path(), "exec REAL \"$@\"", fails);
    let harness = Harness::with(|config| config.pg_bin = Some(programs)).await;
    let tenant = harness.provisioned("cut").await;
    let backup = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
    failure(&harness, backup).await;
    let archives = &harness.provisioner.config().archive_dir;
    assert_eq!(files_in(archives, ""), Vec::<std::path::PathBuf>::new());
    programs_that(dir.path(), "exec REAL \"$@\"", "exec REAL \"$@\"");
    harness.provisioner.reopen(backup, by()).await.unwrap();
    let ended = harness.provisioner.run(backup, |_| {}).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    assert_eq!(files_in(archives, "").len(), 2, "dump and manifest");
}

#[tokio::test]
async fn a_restore_in_place_of_an_adopted_database_keeps_owners_collation_and_connection_limit() {
    let harness = Harness::new().await;
    let icu = "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LOCALE 'C'";
    let old = Old::made_with(&harness, "heirloom", 5, icu).await;
    let (db, user) = (&old.name, &old.user);
    let admin = connect(&harness.space.server).await;
    admin
        .batch_execute(&format!("ALTER DATABASE {db} CONNECTION LIMIT 7"))
        .await
        .unwrap();
    let (tenant, _) = adopted(&harness, &old, "heirloom").await;
    let inside = harness.inside(&tenant).await;
    inside
        .batch_execute(&format!(
            "CREATE SCHEMA own AUTHORIZATION \"{user}\"; SET ROLE \"{user}\";
             CREATE TABLE own.words (id int GENERATED ALWAYS AS IDENTITY, word text);
             CREATE FUNCTION own.whoami() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
             CREATE VIEW own.seen AS SELECT * FROM own.words; GRANT SELECT ON own.words TO PUBLIC"
        ))
        .await
        .unwrap();
    drop(inside);
    let traits = async || {
        let sql = "SELECT (to_jsonb(d) - 'oid' - 'datfrozenxid' - 'datminmxid' - 'datacl' - 'dattablespace')::text FROM pg_database d WHERE datname = $1";
        let row = admin.query_one(sql, &[&db.as_str()]).await.unwrap();
        row.get::<_, String>(0)
    };
    let owned = async || {
        let sql = "SELECT concat_ws(' ', i.type, i.identity) FROM pg_shdepend d, pg_identify_object(d.classid, d.objid, 0) i
              WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND d.refobjid = $1::text::regrole AND d.deptype = 'o' AND i.type NOT LIKE 'toast%' ORDER BY 1";
        let rows = harness
            .inside(&tenant)
            .await
            .query(sql, &[&model::quote_ident(user)])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let (before, owned_before) = (traits().await, owned().await);
    assert!(
        before.contains("de-u-co-phonebk") && before.contains("\"datconnlimit\": 7"),
        "{before}"
    );
    assert!(owned_before.len() >= 5, "{owned_before:?}");
    let archive = harness.backed_up(&tenant).await;
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(traits().await, before);
    assert_eq!(owned().await, owned_before);
    assert!(harness.serves(tenant.id).await);
    let row = harness
        .inside(&tenant)
        .await
        .query_one("SELECT own.whoami()", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), user);

    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    assert_eq!(traits().await, before);
    // What is restored after a removal sorts as it did.
    let removed = harness.removed(&tenant).await;
    let (tenant, operation) = harness
        .provisioner
        .request_restore(removed.id, provisioner::RestoreAs::default(), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let sql = "SELECT to_jsonb(d)::text FROM pg_database d WHERE datname = $1";
    let row = admin.query_one(sql, &[&tenant.db_name.as_str()]).await.unwrap();
    assert!(row.get::<_, &str>(0).contains("de-u-co-phonebk"));
}
