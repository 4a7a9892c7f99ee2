//! What a person can do by hand to a laboratory's role or database that opens it to others or changes what
//! its statements mean: the doctor finds each, and either takes it back or says the statements that do.

use model::Slug;
use provisioner::{Finding, RestoreAs};
use registry::Tenant;

use crate::{
    adopt::{Old, adopted},
    harness::{Harness, by, connect},
};

/// A laboratory with a neighbour and a role that has nothing to do with either.
pub(crate) struct Scene {
    pub(crate) harness: Harness,
    pub(crate) tenant: Tenant,
    neighbour: Tenant,
    outsider: String,
}

/// Where a statement is run, and where the statement that takes it back must be.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum At {
    Server,
    Inside,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let harness = Harness::new().await;
        let (tenant, neighbour) = (
            harness.provisioned("planted").await,
            harness.provisioned("neighbour").await,
        );
        let outsider = model::quote_ident(&harness.named("outsider"));
        let scene = Self {
            harness,
            tenant,
            neighbour,
            outsider,
        };
        scene
            .run(At::Server, &format!("CREATE ROLE {} LOGIN", scene.outsider))
            .await;
        scene.harness.healthy().await;
        scene
    }

    pub(crate) async fn run(&self, at: At, sql: &str) {
        let client = match at {
            At::Server => connect(&self.harness.space.server).await,
            At::Inside => self.harness.inside(&self.tenant).await,
        };
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {}", pg::describe(&error)));
    }

    /// Plants a fault and expects it to be the one finding, of this kind.
    pub(crate) async fn planted(&self, at: At, kind: &str, sql: &str) -> Finding {
        let sql = self.filled(sql);
        self.run(at, &sql).await;
        let mut report = self.harness.provisioner.examine(true).await.unwrap();
        let reported: Vec<_> = report.findings.iter().map(|f| f.kind.as_str()).collect();
        assert_eq!(reported, [kind], "{sql}: {:#?}", report.findings);
        report.findings.remove(0)
    }

    pub(crate) fn filled(&self, sql: &str) -> String {
        let namespace = &self.harness.space.namespace;
        sql.replace("{role}", &self.tenant.role_name.to_string())
            .replace("{group}", &namespace.tenant_group(self.tenant.id).to_string())
            .replace("{database}", &self.tenant.db_name.to_string())
            .replace("{neighbour}", &self.neighbour.role_name.to_string())
            .replace(
                "{neighbours_group}",
                &namespace.tenant_group(self.neighbour.id).to_string(),
            )
            .replace("{neighbours_database}", &self.neighbour.db_name.to_string())
            .replace("{outsider}", &self.outsider)
    }

    /// `--fix` takes it back, says so, and it stays so.
    pub(crate) async fn is_fixed(&self, finding: &Finding) {
        assert!(finding.fixable, "{finding:#?}");
        let report = self.harness.provisioner.fix(true, by()).await.unwrap();
        assert_eq!(report.left(), 0, "{:#?}", report.findings);
        self.harness.healthy().await;
        assert!(self.harness.serves(self.tenant.id).await, "{finding:#?}");
    }

    /// `--fix` leaves it to a person, who gets the statements.
    pub(crate) async fn is_advised(&self, at: At, finding: &Finding) {
        assert!(!finding.fixable, "{finding:#?}");
        let mut parts = finding.advice.split('`');
        let sql = parts
            .nth(1)
            .unwrap_or_else(|| panic!("no statement: {finding:#?}"));
        if at == At::Inside {
            let database = self.tenant.db_name.as_str();
            assert!(finding.advice.contains(database), "{finding:#?}");
        }
        self.run(at, sql).await;
        self.harness.healthy().await;
    }
}

#[tokio::test]
async fn attributes_of_a_laboratorys_role_are_found_and_taken_back() {
    let scene = Scene::new().await;
    for attribute in ["SUPERUSER", "CREATEROLE", "CREATEDB", "BYPASSRLS", "REPLICATION"] {
        let sql = format!("ALTER ROLE {{role}} {attribute}");
        let finding = scene.planted(At::Server, "role_attributes", &sql).await;
        assert!(finding.seen.contains(attribute), "{finding:#?}");
        scene.is_fixed(&finding).await;
    }
    let sql = "ALTER ROLE {group} LOGIN CREATEROLE BYPASSRLS";
    let finding = scene.planted(At::Server, "role_attributes", sql).await;
    scene.is_fixed(&finding).await;
}

#[tokio::test]
async fn a_password_that_expired_is_found_once_and_fixed_for_good() {
    let scene = Scene::new().await;
    for until in ["2020-01-01", "2090-01-01"] {
        let sql = format!("ALTER ROLE {{role}} VALID UNTIL '{until}'");
        let finding = scene.planted(At::Server, "role_attributes", &sql).await;
        assert!(finding.seen.contains("VALID UNTIL"), "{finding:#?}");
        scene.is_fixed(&finding).await;
    }
    // Whatever lets a role in puts that right, too.
    let sql = scene.filled("ALTER ROLE {role} VALID UNTIL '2020-01-01'");
    scene.run(At::Server, &sql).await;
    let (harness, id) = (&scene.harness, scene.tenant.id);
    harness.provisioner.suspend(id, by()).await.unwrap();
    harness.provisioner.resume(id, by()).await.unwrap();
    assert!(harness.serves(id).await);
    harness.healthy().await;
}

#[tokio::test]
async fn memberships_in_both_directions_are_found() {
    let scene = Scene::new().await;
    for role in [
        "pg_read_all_data",
        "pg_execute_server_program",
        "{neighbours_group}",
    ] {
        let sql = format!("GRANT {role} TO {{role}}");
        let finding = scene.planted(At::Server, "role_membership", &sql).await;
        scene.is_fixed(&finding).await;
    }
    for sql in [
        "GRANT {outsider} TO {role}",
        "GRANT {role} TO {outsider}",
        "GRANT {group} TO {outsider}",
    ] {
        let finding = scene.planted(At::Server, "role_membership", sql).await;
        scene.is_advised(At::Server, &finding).await;
    }
    // The right way out of a database that is reached through a role is out of the role.
    scene
        .run(
            At::Server,
            &scene.filled("GRANT CONNECT ON DATABASE {neighbours_database} TO {outsider}"),
        )
        .await;
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    scene
        .run(At::Server, &scene.filled("GRANT {outsider} TO {role}"))
        .await;
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    let out = scene.filled("REVOKE {outsider} FROM {role}").replace('"', "");
    let advised = report.findings.iter().filter(|f| f.advice.contains(&out));
    assert_eq!(advised.count(), 1, "{:#?}", report.findings);
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
}

#[tokio::test]
async fn rights_of_others_on_and_in_a_laboratorys_database_are_found() {
    let scene = Scene::new().await;
    let kind = "rights_of_others";
    let finding = scene
        .planted(
            At::Server,
            kind,
            "GRANT CONNECT ON DATABASE {database} TO {outsider}",
        )
        .await;
    scene.is_advised(At::Server, &finding).await;
    for sql in [
        "GRANT SELECT ON patient TO PUBLIC",
        "GRANT SELECT (national_id) ON patient TO PUBLIC",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "GRANT USAGE ON SEQUENCE patient_mrn_seq TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION lab_day(timestamptz) TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
    ] {
        let finding = scene.planted(At::Inside, kind, sql).await;
        scene.is_fixed(&finding).await;
    }
    for sql in [
        "GRANT SELECT ON patient TO {outsider}",
        "GRANT SELECT (national_id), UPDATE (national_id) ON patient TO {outsider}",
        "GRANT USAGE, CREATE ON SCHEMA public TO {outsider}",
        "GRANT USAGE ON SEQUENCE patient_mrn_seq TO {outsider}",
        "GRANT EXECUTE ON FUNCTION lab_day(timestamptz) TO {outsider}",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {outsider}",
        "CREATE SCHEMA extra; CREATE TABLE extra.t (); GRANT USAGE ON SCHEMA extra TO {outsider}; GRANT ALL ON extra.t TO {outsider}",
    ] {
        let finding = scene.planted(At::Inside, kind, sql).await;
        scene.is_advised(At::Inside, &finding).await;
    }
}

#[tokio::test]
async fn settings_that_change_what_a_laboratorys_statements_mean_are_found_wherever_they_stand() {
    let scene = Scene::new().await;
    for setting in [
        "default_transaction_read_only = on",
        "search_path = nowhere, public",
        "row_security = off",
        "default_transaction_isolation = 'serializable'",
    ] {
        let sql = format!("ALTER DATABASE {{database}} SET {setting}");
        let finding = scene.planted(At::Server, "database_settings", &sql).await;
        scene.is_advised(At::Server, &finding).await;
        let sql = format!("ALTER ROLE {{role}} IN DATABASE {{database}} SET {setting}");
        let finding = scene.planted(At::Server, "role_settings", &sql).await;
        scene.is_fixed(&finding).await;
    }
    // What changes nothing is nobody's business.
    for setting in [
        "search_path = \"$user\", public, extra",
        "default_transaction_read_only = off",
        "timezone = 'Europe/Vienna'",
        "work_mem = '8MB'",
    ] {
        let sql = format!("ALTER DATABASE {{database}} SET {setting}");
        scene.run(At::Server, &scene.filled(&sql)).await;
        scene.harness.healthy().await;
    }
}

#[tokio::test]
async fn a_log_in_without_a_password_is_found() {
    let scene = Scene::new().await;
    let role = scene.tenant.role_name.as_str();
    let line = testkit::HbaLine::new(&scene.harness.space.server, role, "trust").await;
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    let reported: Vec<_> = report.findings.iter().map(|f| f.kind.as_str()).collect();
    assert_eq!(reported, ["log_in_without_password"], "{:#?}", report.findings);
    let finding = &report.findings[0];
    assert!(
        finding.seen.contains(role)
            && finding.seen.contains("trust")
            && finding.subject.contains("pg_hba.conf"),
        "{finding:#?}"
    );
    assert!(
        !finding.fixable && finding.advice.contains("scram-sha-256"),
        "{finding:#?}"
    );
    line.take_away().await;
    scene.harness.healthy().await;
}

#[tokio::test]
async fn a_role_that_the_server_rejects_is_found_with_the_line_that_does_it() {
    let scene = Scene::new().await;
    let role = scene.tenant.role_name.as_str();
    let line = testkit::HbaLine::rejecting(&scene.harness.space.server, role).await;
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    let reported: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(reported, [("role_cannot_log_in", role)], "{:#?}", report.findings);
    assert!(
        report.findings[0].advice.contains("pg_hba.conf:1"),
        "{:#?}",
        report.findings
    );
    line.take_away().await;
    scene.harness.healthy().await;
}

#[tokio::test]
async fn what_cannot_be_fixed_is_not_called_fixed() {
    let scene = Scene::new().await;
    // Its own people may change the role again at once: an event trigger does so for them.
    let sql = scene.filled(
        "CREATE FUNCTION public.again() RETURNS event_trigger LANGUAGE plpgsql AS
           $$BEGIN EXECUTE 'GRANT SELECT ON public.patient TO PUBLIC'; END$$;
         CREATE EVENT TRIGGER again ON ddl_command_end WHEN TAG IN ('REVOKE') EXECUTE FUNCTION public.again();
         REVOKE ALL ON FUNCTION public.again() FROM PUBLIC",
    );
    scene.run(At::Inside, &sql).await;
    let report = scene.harness.provisioner.fix(true, by()).await.unwrap();
    assert_eq!(report.left(), 1, "{:#?}", report.findings);
    let finding = &report.findings[0];
    assert!(!finding.fixed && finding.not_fixed.is_some(), "{finding:#?}");
}

/// Roles that were there before are the laboratory's own people, with whatever rights they have, in copies,
/// too.
#[tokio::test]
async fn people_of_an_adopted_laboratory_are_no_findings() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "people", 5).await;
    let readers = model::quote_ident(&harness.named("old_readers"));
    let admin = connect(&harness.space.server).await;
    let inside = connect(&harness.space.server.with_database(old.name.as_str())).await;
    admin
        .batch_execute(&format!("CREATE ROLE {readers}"))
        .await
        .unwrap();
    inside
        .batch_execute(&format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {readers};
             GRANT SELECT ON own_notes TO PUBLIC;
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {readers};
             ALTER DATABASE {} SET search_path = public, own",
            old.name
        ))
        .await
        .unwrap();
    let (tenant, _) = adopted(&harness, &old, "people").await;
    harness.healthy().await;
    // What everybody may do with the laboratory's own tables is told and left to a person: its people may
    // need it.
    let grant = "GRANT SELECT ON patient, own_notes TO PUBLIC";
    inside.batch_execute(grant).await.unwrap();
    let report = harness.provisioner.examine(true).await.unwrap();
    let [finding] = report.findings.as_slice() else {
        panic!("{:#?}", report.findings)
    };
    assert!(
        finding.kind.as_str() == "rights_of_others"
            && !finding.fixable
            && !finding.seen.contains("own_notes"),
        "{finding:#?}"
    );
    let back = "REVOKE SELECT ON patient FROM PUBLIC";
    inside.batch_execute(back).await.unwrap();
    harness.healthy().await;
    let archive = harness.backed_up(&tenant).await;
    harness.healthy().await;
    let restore_as = RestoreAs {
        slug: Some(Slug::parse("copy").unwrap()),
        server: None,
    };
    let asked = harness
        .provisioner
        .request_restore(archive.id, restore_as, by())
        .await;
    harness.provisioner.run(asked.unwrap().1, |_| {}).await.unwrap();
    harness.healthy().await;
    let asked = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await;
    harness.provisioner.run(asked.unwrap().1, |_| {}).await.unwrap();
    harness.healthy().await;
}

#[tokio::test]
async fn sessions_that_hold_most_of_the_servers_locks_are_found() {
    let scene = Scene::new().await;
    let own = connect(&scene.harness.own(&scene.tenant)).await;
    let sql = "SELECT pg_advisory_lock(n) FROM generate_series(1, 1 + current_setting('max_locks_per_transaction')::int
                   * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) / 10) AS n";
    own.execute(sql, &[]).await.unwrap();
    let report = scene.harness.provisioner.examine(true).await.unwrap();
    let reported: Vec<_> = report.findings.iter().map(|f| f.kind.as_str()).collect();
    assert_eq!(reported, ["locks_held"], "{:#?}", report.findings);
    scene.is_advised(At::Server, &report.findings[0]).await;
    assert!(
        own.simple_query("SELECT 1").await.is_err(),
        "the session is ended"
    );
}
