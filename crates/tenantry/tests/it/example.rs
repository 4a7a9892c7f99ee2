//! The example, run as a program against a registry in which a laboratory was really provisioned.

use std::{path::PathBuf, process::Output, time::Duration};

use bootstrap::Platform;
use model::{Email, Slug};
use provisioner::{NewAdmin, NewLab, RequestedBy};
use settings::Settings;
use testkit::Space;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(120);

/// Beside this test, where cargo puts the examples of a package whose tests it builds.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(|deps| deps.parent()).unwrap();
    let example = built.join("examples/query");
    assert!(
        example.exists(),
        "{} is not built; run `cargo build -p tenantry --examples`, or all of the package's tests",
        example.display()
    );
    example
}

async fn run(space: &Space, slug: &str) -> Output {
    let ran = Command::new(example())
        .arg(slug)
        .env_clear()
        .envs(space.environment())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(LIMIT, ran).await.expect("it ends").unwrap()
}

async fn provision(platform: &Platform, slug: &str) {
    let lab = NewLab {
        slug: Slug::parse(slug).unwrap(),
        name: slug.to_owned(),
        time_zone: "Europe/Vienna".to_owned(),
        server: None,
        admin: NewAdmin {
            email: Email::parse("ada@example.org").unwrap(),
            display_name: "Ada".to_owned(),
            password_hash: None,
        },
    };
    let by = RequestedBy::terminal("test");
    let (_, operation) = platform.provisioner.request_provision(lab, by).await.unwrap();
    platform.provisioner.run(operation, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_from_a_slug_to_a_query_and_says_what_is_wrong() {
    let space = Space::new().await;
    let env = space.environment().into_iter();
    let settings = Settings::load(None, env.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let platform = Platform::open(&settings).await.unwrap();
    platform.prepare(|_| {}).await.unwrap();
    provision(&platform, "acme-lab").await;

    let output = run(&space, "acme-lab").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "acme-lab: 0 patients\n");
    let client = platform.registry.client().await.unwrap();
    assert_eq!(registry_routers(&client).await, 0, "it ended its registration");
    drop(client);

    let output = run(&space, "nosuch-lab").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nosuch-lab"), "{said}");
    platform.close().await.unwrap();
}

async fn registry_routers(client: &registry::RegistryClient) -> usize {
    registry::routers_list(client).await.unwrap().len()
}
