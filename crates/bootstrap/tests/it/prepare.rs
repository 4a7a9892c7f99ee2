use std::fs;

use bootstrap::{Platform, PlatformError, Prepared};
use identity::KeyStore;
use secrecy::ExposeSecret as _;
use settings::Settings;
use testkit::Space;

pub(crate) fn settings(space: &Space, state: &str) -> Settings {
    settings_in(space, state, &space.registry.database)
}

fn settings_in(space: &Space, state: &str, database: &str) -> Settings {
    let registry = &space.registry;
    let env = [
        ("MASTER_PGHOST", registry.host.clone()),
        ("MASTER_PGPORT", registry.port.to_string()),
        ("MASTER_PGUSER", registry.user.clone()),
        ("MASTER_PGPASSWORD", registry.password.expose_secret().to_owned()),
        ("MASTER_PGDATABASE", database.to_owned()),
        ("TENANTRY_NAMES_NAMESPACE", space.namespace.as_str().to_owned()),
        (
            "TENANTRY_STATE_DIR",
            space.dir().join(state).display().to_string(),
        ),
    ];
    Settings::load(None, env.map(|(name, value)| (name.to_owned(), value))).unwrap()
}

#[tokio::test]
async fn before_it_is_prepared_it_says_what_to_run_and_preparing_twice_changes_nothing() {
    let space = Space::new().await;
    let platform = Platform::open(&settings(&space, "state")).await.unwrap();
    let message = platform.ready().await.unwrap_err().to_string();
    assert!(message.contains("tenantctl up"), "{message}");

    let mut first = Vec::new();
    platform.prepare(|step| first.push(step)).await.unwrap();
    assert_eq!(first.len(), 5);
    assert!(
        matches!(&first[2], Prepared::Server { changed: true, .. }),
        "{first:?}"
    );
    platform.ready().await.unwrap();

    let mut second = Vec::new();
    platform.prepare(|step| second.push(step)).await.unwrap();
    assert!(
        matches!(&second[0], Prepared::Database { created: false, .. }),
        "{second:?}"
    );
    assert!(
        matches!(&second[2], Prepared::Server { changed: false, .. }),
        "{second:?}"
    );
    assert_eq!(first[4], second[4]);
    platform.close().await.unwrap();
}

#[tokio::test]
async fn a_missing_registry_database_is_made() {
    let space = Space::new().await;
    let database = format!("{}_other", space.namespace.as_str());
    let settings = settings_in(&space, "state", &database);
    let platform = Platform::open(&settings).await.unwrap();
    let message = platform.ready().await.unwrap_err().to_string();
    assert!(message.contains("tenantctl up"), "{message}");
    let mut steps = Vec::new();
    platform.prepare(|step| steps.push(step)).await.unwrap();
    assert!(
        matches!(&steps[0], Prepared::Database { created: true, .. }),
        "{steps:?}"
    );
}

#[tokio::test]
async fn other_keys_than_those_of_the_installation_are_refused_and_named() {
    let space = Space::new().await;
    let installed = Platform::open(&settings(&space, "one")).await.unwrap();
    installed.prepare(|_| ()).await.unwrap();
    let keys = space.dir().join("two/keys");
    KeyStore::open_or_create(&keys).unwrap();
    let stranger = Platform::open(&settings(&space, "two")).await.unwrap();
    for error in [
        stranger.prepare(|_| ()).await.unwrap_err(),
        stranger.ready().await.unwrap_err(),
    ] {
        assert!(matches!(error, PlatformError::Sealed { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("two/keys") && message.contains("seal.key"),
            "{message}"
        );
    }
    assert!(keys.join("seal.key").exists(), "it is not ours to remove");
}

#[tokio::test]
async fn a_lost_key_is_not_replaced_by_a_new_one_that_opens_nothing() {
    let space = Space::new().await;
    let settings = settings(&space, "state");
    let platform = Platform::open(&settings).await.unwrap();
    platform.prepare(|_| ()).await.unwrap();
    platform.close().await.unwrap();
    let (key, kept) = (
        space.dir().join("state/keys/seal.key"),
        space.dir().join("backup"),
    );
    fs::rename(&key, &kept).unwrap();

    // Whichever program comes first, as often as it comes.
    for _ in 0..2 {
        let platform = Platform::open(&settings).await.unwrap();
        let error = platform.ready().await.unwrap_err();
        assert!(matches!(error, PlatformError::KeyLost { .. }), "{error}");
        assert!(!key.exists());
        let platform = Platform::open(&settings).await.unwrap();
        let error = platform.prepare(|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("backup"), "{error}");
        assert!(!key.exists());
    }
    fs::rename(&kept, &key).unwrap();
    Platform::open(&settings).await.unwrap().ready().await.unwrap();
}

#[tokio::test]
async fn an_embedded_server_that_nobody_made_is_not_started_to_find_out() {
    let dir = std::env::temp_dir().join(format!("tenantry-nobody-{}", std::process::id()));
    let env = [("TENANTRY_STATE_DIR".to_owned(), dir.display().to_string())];
    let settings = Settings::load(None, env).unwrap();
    assert!(settings.uses_embedded());
    let message = Platform::installed(&settings).unwrap_err().to_string();
    assert!(message.contains("tenantctl up"), "{message}");
    assert!(!dir.exists());
}
