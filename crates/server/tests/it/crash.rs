//! `kill -9` of the real `tenantd` at each step of an operation, then a restart: both operations end as they
//! should.
//!
//! The process stops at the point and tells a file; the test sees the operation unfinished in the registry,
//! kills, and starts another one.

use std::collections::HashMap;

use model::{OperationKind, Step};
use serde_json::json;
use testkit::{Space, eventually};

use crate::support::{
    LIMIT, Lab, Tenantd, World, at_once, connect, environment, finished, new_lab, provision,
};

#[tokio::test]
async fn provisioning_killed_before_any_step_ends_in_a_laboratory_that_works() {
    provisioning_killed("begun").await;
}

#[tokio::test]
async fn provisioning_killed_behind_any_step_ends_in_a_laboratory_that_works() {
    provisioning_killed("acted").await;
}

#[tokio::test]
async fn offboarding_killed_before_any_step_ends_in_an_archive_and_nothing_else() {
    offboarding_killed("begun").await;
}

#[tokio::test]
async fn offboarding_killed_behind_any_step_ends_in_an_archive_and_nothing_else() {
    offboarding_killed("acted").await;
}

async fn provisioning_killed(moment: &str) {
    let world = Bare::new().await;
    for &step in provisioner::steps(OperationKind::Provision) {
        let slug = slug_for(step);
        let doomed = Doomed::start(&world, OperationKind::Provision, step, moment).await;
        let asked = doomed
            .server
            .post(&world.operator, "/api/v1/tenants", new_lab(&slug))
            .await;
        let location = asked.header("location").to_owned();
        let tenant = asked.expect(202)["tenantId"].as_str().unwrap().to_owned();
        doomed.die(&world, &location, step).await;

        let d = Tenantd::start(&world.space, environment(&world.space)).await;
        let operation = finished(&d, &world.operator, &location).await;
        assert_eq!(operation["status"], "succeeded", "{step}: {operation}");
        // The laboratory answers, and works.
        let admin = d.log_in(&Lab::email(&slug, "admin"), None).await;
        assert_eq!(
            d.get(&admin, "/api/v1/me").await.expect(200)["tenantId"],
            json!(tenant)
        );
        let patient =
            json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
        d.post(&admin, "/api/v1/patients", patient).await.expect(201);
        let staff = d.get(&admin, "/api/v1/staff").await.expect(200);
        assert_eq!(staff["items"].as_array().unwrap().len(), 1, "{step}: seeded once");
        assert_eq!(d.stop().await, Some(0));
    }
}

async fn offboarding_killed(moment: &str) {
    let world = Bare::new().await;
    for &step in provisioner::steps(OperationKind::Offboard) {
        let slug = slug_for(step);
        let d = Tenantd::start(&world.space, environment(&world.space)).await;
        let tenant = provision(&d, &world.operator, &slug).await;
        let admin = d.log_in(&Lab::email(&slug, "admin"), None).await;
        let patient =
            json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
        d.post(&admin, "/api/v1/patients", patient).await.expect(201);
        assert_eq!(d.stop().await, Some(0));

        let doomed = Doomed::start(&world, OperationKind::Offboard, step, moment).await;
        let asked = doomed
            .server
            .post(
                &world.operator,
                &format!("/api/v1/tenants/{tenant}/offboard"),
                at_once(&slug),
            )
            .await;
        let location = asked.header("location").to_owned();
        asked.expect(202);
        doomed.die(&world, &location, step).await;

        let d = Tenantd::start(&world.space, environment(&world.space)).await;
        let operation = finished(&d, &world.operator, &location).await;
        assert_eq!(operation["status"], "succeeded", "{step}: {operation}");
        gone(&world, &d, &tenant, &slug).await;
        assert_eq!(d.stop().await, Some(0));
    }
}

/// The archive is there and whole; database, role and row are not.
async fn gone(world: &Bare, d: &Tenantd, tenant: &str, slug: &str) {
    let archives = d
        .get(&world.operator, &format!("/api/v1/archives?tenantId={tenant}"))
        .await
        .expect(200);
    let [archive] = archives["items"].as_array().unwrap().as_slice() else {
        panic!("{archives}")
    };
    let file = std::fs::metadata(archive["location"].as_str().unwrap()).unwrap();
    assert_eq!(json!(file.len()), archive["bytes"]);
    d.get(&world.operator, &format!("/api/v1/tenants/{tenant}"))
        .await
        .refused(404, "unknown-tenant");
    let (databases, roles) = world.space.contents().await;
    let left = |name: &str| name.contains(slug);
    assert!(!databases.iter().any(|name| left(name.as_str())), "{databases:?}");
    assert!(!roles.iter().any(|name| left(name.as_str())), "{roles:?}");
}

fn slug_for(step: Step) -> String {
    format!("lab-{}", step.as_str().replace('_', "-"))
}

/// An installation in which no `tenantd` runs: another one's worker would take the operation.
struct Bare {
    space: Space,
    operator: String,
}

impl Bare {
    async fn new() -> Self {
        let World {
            server,
            operator,
            space,
        } = World::start().await;
        assert_eq!(server.stop().await, Some(0));
        Self { space, operator }
    }
}

/// A `tenantd` that will stop at one point and wait to be killed.
struct Doomed {
    server: Tenantd,
    point: String,
    file: std::path::PathBuf,
}

impl Doomed {
    async fn start(world: &Bare, kind: OperationKind, step: Step, moment: &str) -> Self {
        let point = format!("{kind}/{step}/{moment}");
        let file = world.space.dir().join(point.replace('/', "-"));
        let mut env: HashMap<String, String> = environment(&world.space);
        env.insert("TENANTRY_FAULT_POINT".to_owned(), point.clone());
        env.insert("TENANTRY_FAULT_FILE".to_owned(), file.display().to_string());
        Self {
            server: Tenantd::start(&world.space, env).await,
            point,
            file,
        }
    }

    /// Waits for the point, sees that the operation is in the middle of the step, and kills.
    async fn die(self, world: &Bare, location: &str, step: Step) {
        eventually(&self.point, LIMIT, async || {
            std::fs::read_to_string(&self.file).is_ok_and(|told| told.trim() == self.point)
        })
        .await;
        let id: uuid::Uuid = location.rsplit('/').next().unwrap().parse().unwrap();
        let client = connect(&world.space.registry).await;
        let status: String = client
            .query_one("SELECT status FROM operations WHERE id = $1", &[&id])
            .await
            .unwrap()
            .get(0);
        assert_eq!(
            status, "running",
            "{}: the kill must land before the end",
            self.point
        );
        let sql = "SELECT status FROM operation_steps WHERE operation_id = $1 AND step = $2";
        let at: String = client
            .query_one(sql, &[&id, &step.as_str()])
            .await
            .unwrap()
            .get(0);
        assert_eq!(at, "running", "{}", self.point);
        self.server.kill().await;
    }
}
