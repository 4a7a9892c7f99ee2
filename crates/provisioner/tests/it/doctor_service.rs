//! What keeps a laboratory from working although its role can log in, or is refused for another reason than
//! its password: the doctor finds each, and `--fix` brings the laboratory back to service.

use crate::{
    doctor_rights::{At, Scene},
    harness::{Harness, by, connect},
};

#[tokio::test]
async fn what_keeps_a_role_from_working_is_found_and_fixed() {
    let scene = Scene::new().await;
    for (kind, sql) in [
        (
            "role_cannot_log_in",
            "ALTER DATABASE {database} CONNECTION LIMIT 0",
        ),
        (
            "database_settings",
            "ALTER DATABASE {database} CONNECTION LIMIT 1",
        ),
        ("role_attributes", "ALTER ROLE {role} NOINHERIT"),
        ("database_settings", "ALTER DATABASE {database} IS_TEMPLATE true"),
        ("role_membership", "GRANT {group} TO {role} WITH ADMIN OPTION"),
    ] {
        let finding = scene.planted(At::Server, kind, sql).await;
        scene.is_fixed(&finding).await;
    }
}

#[tokio::test]
async fn tables_that_hide_their_rows_or_are_not_guarded_are_found_and_fixed() {
    let scene = Scene::new().await;
    for (sql, named) in [
        (
            "ALTER TABLE staff ENABLE ROW LEVEL SECURITY",
            "row security is on",
        ),
        ("ALTER TABLE result DISABLE TRIGGER ALL", "triggers are off"),
        ("ALTER TABLE result DISABLE TRIGGER result_guard", "result_guard"),
    ] {
        let finding = scene.planted(At::Inside, "database_settings", sql).await;
        assert!(finding.seen.contains(named), "{sql}: {finding:#?}");
        scene.is_fixed(&finding).await;
    }
}

#[tokio::test]
async fn rights_that_a_laboratory_lacks_or_has_beyond_the_grants_are_found_and_settled() {
    let scene = Scene::new().await;
    for (sql, named) in [
        (
            "REVOKE USAGE ON SCHEMA public FROM {group}",
            "USAGE on SCHEMA public",
        ),
        ("REVOKE SELECT ON staff FROM {group}", "SELECT on TABLE staff"),
        (
            "REVOKE UPDATE (status) ON result FROM {group}",
            "UPDATE (status) on TABLE result",
        ),
        (
            "REVOKE USAGE ON SEQUENCE patient_mrn_seq FROM {group}",
            "SEQUENCE patient_mrn_seq",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION limits_lost(ref_range) FROM {group}",
            "limits_lost(ref_range)",
        ),
        (
            "REVOKE SELECT ON refinery_schema_history FROM {group}",
            "refinery_schema_history",
        ),
        (
            "GRANT DELETE, UPDATE ON result TO {group}",
            "DELETE on TABLE result",
        ),
        (
            "GRANT UPDATE (id) ON result TO {group}",
            "UPDATE (id) on TABLE result",
        ),
        (
            "GRANT CREATE ON SCHEMA public TO {group}",
            "CREATE on SCHEMA public",
        ),
        (
            "GRANT SELECT ON staff TO {group} WITH GRANT OPTION",
            "SELECT on TABLE staff WITH GRANT OPTION",
        ),
    ] {
        let finding = scene.planted(At::Inside, "rights_unsettled", sql).await;
        assert!(finding.seen.contains(named), "{sql}: {finding:#?}");
        scene.is_fixed(&finding).await;
    }
    let own = "GRANT DELETE ON audit_event TO {role}; GRANT UPDATE (id) ON audit_event TO {role}";
    let finding = scene.planted(At::Inside, "rights_unsettled", own).await;
    scene.is_fixed(&finding).await;
}

#[tokio::test]
async fn a_role_without_room_for_another_session_is_found() {
    let harness = Harness::with(|config| config.roles.connections_max = 2).await;
    let tenant = harness.provisioned("crowded").await;
    harness.healthy().await;
    let (first, second) = (
        connect(&harness.own(&tenant)).await,
        connect(&harness.own(&tenant)).await,
    );
    let report = harness.provisioner.examine(true).await.unwrap();
    let reported: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(
        reported,
        [("role_cannot_log_in", tenant.role_name.as_str())],
        "{:#?}",
        report.findings
    );
    let finding = &report.findings[0];
    assert!(
        finding.seen.contains("53300") && finding.advice.contains("pg_stat_activity"),
        "{finding:#?}"
    );
    drop((first, second));
}

/// What is only found because of something else goes with it.
#[tokio::test]
async fn a_finding_that_went_with_what_was_fixed_is_not_left() {
    let scene = Scene::new().await;
    let sql = scene.filled("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    scene.run(At::Server, &sql).await;
    let report = scene.harness.provisioner.fix(true, by()).await.unwrap();
    assert_eq!(report.left(), 0, "{:#?}", report.findings);
    scene.harness.healthy().await;
}

#[tokio::test]
async fn the_advice_about_a_role_that_owns_its_database_leaves_it_its_right_to_connect() {
    let scene = Scene::new().await;
    let sql = "ALTER DATABASE {database} OWNER TO {role}";
    let finding = scene.planted(At::Server, "rights_of_others", sql).await;
    scene.is_advised(At::Server, &finding).await;
    assert!(scene.harness.serves(scene.tenant.id).await);
}

#[tokio::test]
async fn a_database_that_is_a_finding_is_not_listed_as_open_once_more() {
    let scene = Scene::new().await;
    let sql = "GRANT CONNECT ON DATABASE {database} TO PUBLIC";
    scene.planted(At::Server, "open_to_public", sql).await;
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    let name = scene.tenant.db_name.as_str();
    let listed = report
        .reachable
        .iter()
        .any(|reachable| reachable.open.database == name);
    assert!(!listed, "{:#?}", report.reachable);
}

/// Renamed is not gone: what it holds is the laboratory's, and forgetting it would leave the data without an
/// owner.
#[tokio::test]
async fn a_laboratory_whose_database_was_only_renamed_is_not_forgotten() {
    let scene = Scene::new().await;
    let tenant = &scene.tenant;
    scene.harness.backed_up(tenant).await;
    let elsewhere = scene.harness.named("renamed_by_hand");
    let quoted = model::quote_ident(&elsewhere);
    let sql = scene.filled(&format!("ALTER DATABASE {{database}} RENAME TO {quoted}"));
    scene.run(At::Server, &sql).await;
    let refused = scene
        .harness
        .provisioner
        .forget(tenant.id, true, by())
        .await
        .unwrap_err();
    let message = refused.to_string();
    assert!(
        message.contains("RENAME TO") && message.contains(&elsewhere),
        "{message}"
    );
    assert!(scene.harness.tenant(tenant.id).await.is_some());
    let back = scene.filled(&format!("ALTER DATABASE {quoted} RENAME TO {{database}}"));
    scene.run(At::Server, &back).await;
    assert!(scene.harness.serves(tenant.id).await);
}
