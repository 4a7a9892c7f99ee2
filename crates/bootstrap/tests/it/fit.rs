//! A server that others use, too: what it lacks is said before the first change, and what is theirs stays as
//! it is.

use bootstrap::{Platform, PlatformError, Prepare, Prepared, StaysOpen};
use embedded::{Cluster, ThrowawayOptions};
use model::{Email, Slug};
use pg::ConnectTarget;
use provisioner::{FindingKind, NewAdmin, NewLab, RequestedBy};
use secrecy::{ExposeSecret as _, SecretString};
use settings::Settings;
use tempfile::TempDir;
use tokio_postgres::Client;

/// A PostgreSQL that was there before, with a monitoring role.
struct Existing {
    cluster: Cluster,
    dir: TempDir,
}

impl Existing {
    async fn start() -> Self {
        let cluster = Cluster::start_throwaway(ThrowawayOptions {
            bin: testkit::pg_bin(),
            ..ThrowawayOptions::default()
        })
        .await
        .unwrap();
        let existing = Self {
            cluster,
            dir: TempDir::new().unwrap(),
        };
        existing
            .run("CREATE ROLE monitoring LOGIN PASSWORD 'sees-everything'; GRANT pg_monitor TO monitoring")
            .await;
        existing
    }

    async fn client(&self) -> Client {
        pg::connect(self.cluster.target(), "test", LIMIT).await.unwrap()
    }

    async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    async fn databases(&self) -> Vec<String> {
        let sql = "SELECT datname::text FROM pg_database ORDER BY 1";
        let rows = self.client().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Whether the monitoring role still gets into `postgres`.
    async fn is_monitored(&self) -> bool {
        let password = SecretString::from("sees-everything");
        let target = self.cluster.target().with_user("monitoring", password);
        pg::connect(&target, "test", LIMIT).await.is_ok()
    }

    async fn platform(&self, user: &ConnectTarget, database: &str, more: &[(&str, &str)]) -> Platform {
        let env = [
            ("MASTER_PGHOST", user.host.clone()),
            ("MASTER_PGPORT", user.port.to_string()),
            ("MASTER_PGUSER", user.user.clone()),
            ("MASTER_PGPASSWORD", user.password.expose_secret().to_owned()),
            ("MASTER_PGDATABASE", database.to_owned()),
            (
                "TENANTRY_STATE_DIR",
                self.dir.path().join("state").display().to_string(),
            ),
        ];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env = env.into_iter().chain(more);
        let settings = Settings::load(None, env.map(|(name, value)| (name.to_owned(), value))).unwrap();
        Platform::open(&settings).await.unwrap()
    }

    async fn own(&self, database: &str) -> Platform {
        self.platform(self.cluster.target(), database, &[]).await
    }
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

fn stay_open(steps: &[Prepared]) -> Vec<StaysOpen> {
    let secured = steps.iter().find_map(|step| match step {
        Prepared::Secured { open, .. } => Some(open.clone()),
        _ => None,
    });
    secured.unwrap()
}

async fn provision(platform: &Platform, slug: &str) -> Result<(), provisioner::ProvisionError> {
    let lab = NewLab {
        slug: Slug::parse(slug).unwrap(),
        name: slug.to_owned(),
        time_zone: "UTC".to_owned(),
        server: None,
        admin: NewAdmin {
            email: Email::parse("ada@example.org").unwrap(),
            display_name: "Ada".to_owned(),
            password_hash: Some("not a hash".to_owned().into()),
        },
    };
    let by = RequestedBy::terminal("tester");
    let (_, operation) = platform.provisioner.request_provision(lab, by).await?;
    platform.provisioner.run(operation, |_| {}).await.map(drop)
}

#[tokio::test]
async fn an_administrator_without_superuser_is_refused_before_anything_is_made() {
    let existing = Existing::start().await;
    existing
        .run("CREATE ROLE modest LOGIN CREATEDB PASSWORD 'modest-but-here'")
        .await;
    let before = existing.databases().await;
    let modest = existing
        .cluster
        .target()
        .with_user("modest", SecretString::from("modest-but-here"));
    let platform = existing.platform(&modest, "tenantry", &[]).await;
    let error = platform.prepare(|_| ()).await.unwrap_err();
    assert!(matches!(error, PlatformError::Unfit { .. }), "{error}");
    let said = error.to_string();
    for part in [
        "modest@",
        "SUPERUSER, CREATEROLE",
        "TENANT_PGUSER",
        "Nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(existing.databases().await, before);

    // One that lost it later is refused with each request, at once, and named by the doctor.
    let platform = existing.own("tenantry").await;
    platform.prepare(|_| ()).await.unwrap();
    existing
        .run("CREATE ROLE other SUPERUSER LOGIN; ALTER ROLE postgres NOSUPERUSER")
        .await;
    let refused = provision(&platform, "acme-lab").await.unwrap_err();
    assert!(
        matches!(refused, provisioner::ProvisionError::Unmet { .. }),
        "{refused}"
    );
    let report = platform.provisioner.examine(false).await;
    if let Ok(report) = report {
        let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
        assert!(kinds.contains(&FindingKind::ServerUnfit), "{kinds:?}");
    }
}

#[tokio::test]
async fn the_shared_databases_of_an_existing_server_stay_open_until_somebody_says_so() {
    let existing = Existing::start().await;
    existing.run("CREATE DATABASE of_somebody_else").await;
    let platform = existing.own("tenantry").await;
    let mut steps = Vec::new();
    platform.prepare(|step| steps.push(step)).await.unwrap();
    assert!(existing.is_monitored().await);
    let open = stay_open(&steps);
    let names: Vec<&str> = open.iter().map(|stays| stays.open.database.as_str()).collect();
    assert_eq!(names, ["of_somebody_else", "postgres", "template1"]);
    assert_eq!(open[1].through_public, ["monitoring"]);

    // Laboratories are made there all the same, and the doctor lists what their roles reach.
    provision(&platform, "acme-lab").await.unwrap();
    let report = platform.provisioner.examine(true).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let reached = report
        .reachable
        .iter()
        .map(|reachable| reachable.open.database.as_str());
    assert_eq!(reached.collect::<Vec<_>>(), names);

    let close = Prepare {
        close_shared: true,
        ..Prepare::default()
    };
    let mut steps = Vec::new();
    platform
        .prepare_with(close, |step| steps.push(step))
        .await
        .unwrap();
    assert!(!existing.is_monitored().await);
    let open = stay_open(&steps);
    assert_eq!(open.len(), 1, "what is somebody's is not ours to close: {open:?}");
}

#[tokio::test]
async fn where_open_databases_are_refused_nothing_is_made_beside_one() {
    let existing = Existing::start().await;
    let rule = [("TENANTRY_ROLES_OPEN_DATABASES", "refuse")];
    let platform = existing
        .platform(existing.cluster.target(), "tenantry", &rule)
        .await;
    let before = existing.databases().await;
    let error = platform.prepare(|_| ()).await.unwrap_err().to_string();
    assert!(error.contains("postgres (CONNECT, TEMPORARY)"), "{error}");
    assert_eq!(existing.databases().await, before);
    let close = Prepare {
        close_shared: true,
        ..Prepare::default()
    };
    platform.prepare_with(close, |_| ()).await.unwrap();
    provision(&platform, "acme-lab").await.unwrap();
    existing.run("CREATE DATABASE of_somebody_else").await;
    let began = std::time::Instant::now();
    let refused = provision(&platform, "bravo-lab").await.unwrap_err();
    assert!(
        matches!(refused, provisioner::ProvisionError::Unmet { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("of_somebody_else"), "{refused}");
    assert!(began.elapsed() < LIMIT, "it is not tried again and again");
    let report = platform.provisioner.examine(false).await.unwrap();
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::ServerUnfit]);
}

#[tokio::test]
async fn a_second_registry_over_the_same_laboratories_is_refused_unless_it_is_meant() {
    let existing = Existing::start().await;
    let first = existing.own("tenantry").await;
    first.prepare(|_| ()).await.unwrap();
    provision(&first, "acme-lab").await.unwrap();
    let before = existing.databases().await;

    let typo = existing.own("tenatnry").await;
    let error = typo.prepare(|_| ()).await.unwrap_err();
    assert!(matches!(error, PlatformError::OtherRegistry { .. }), "{error}");
    let said = error.to_string();
    for part in [
        "tenatnry",
        "lab_tenant_acme-lab",
        "--new-registry",
        "MASTER_PGDATABASE",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(existing.databases().await, before);
    // The right one goes on.
    first.prepare(|_| ()).await.unwrap();

    let meant = Prepare {
        new_registry: true,
        ..Prepare::default()
    };
    typo.prepare_with(meant, |_| ()).await.unwrap();
    let report = typo.provisioner.examine(true).await.unwrap();
    let [finding] = report.findings.as_slice() else {
        panic!("{:#?}", report.findings)
    };
    assert_eq!(finding.kind, FindingKind::OtherRegistry);
    assert!(
        !finding.fixable && !finding.advice.contains("DROP"),
        "{finding:#?}"
    );
}
