use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use bootstrap::Platform;
use settings::Settings;
use tempfile::TempDir;
use testkit::eventually;

const LIMIT: Duration = Duration::from_secs(120);

/// An installation below this directory, with its own embedded server.
fn settings(dir: &Path) -> Settings {
    let env = [("TENANTRY_STATE_DIR".to_owned(), dir.display().to_string())];
    Settings::load(None, env).unwrap()
}

/// The server runs as an unprivileged account when root starts it, and must be able to enter.
fn temp_dir() -> TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_started_again_by_its_living_owner_for_all_its_users() {
    let dir = temp_dir();
    let settings = settings(dir.path());
    let owner = Platform::open(&settings).await.unwrap();
    owner.prepare(|_| ()).await.unwrap();
    let guest = Platform::open(&settings).await.unwrap();
    guest.ready().await.unwrap();
    let postmaster = dir.path().join("postgres/data/postmaster.pid");
    let pid = || -> Option<String> { Some(fs::read_to_string(&postmaster).ok()?.lines().next()?.to_owned()) };
    let killed = pid().unwrap();
    let status = Command::new("kill").args(["-9", &killed]).status().unwrap();
    assert!(status.success());
    eventually("another server to run", LIMIT, async || {
        pid().is_some_and(|pid| pid != killed)
    })
    .await;
    for (who, platform) in [("the owner", &owner), ("the guest", &guest)] {
        eventually(&format!("{who} to be ready"), LIMIT, async || {
            platform.ready().await.is_ok()
        })
        .await;
    }
    guest.close().await.unwrap();
    assert!(postmaster.exists(), "it is the owner's still");
    owner.close().await.unwrap();
    assert!(!postmaster.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_takes_the_embedded_server_over_when_its_owner_ends() {
    let dir = temp_dir();
    let settings = settings(dir.path());
    let owner = Platform::open(&settings).await.unwrap();
    owner.prepare(|_| ()).await.unwrap();
    let guest = Platform::open(&settings).await.unwrap();
    guest.ready().await.unwrap();

    owner.close().await.unwrap();
    eventually("the guest runs the server", LIMIT, async || {
        guest.ready().await.is_ok()
    })
    .await;
    let postmaster = dir.path().join("postgres/data/postmaster.pid");
    assert!(postmaster.exists());
    guest.close().await.unwrap();
    assert!(!postmaster.exists(), "it ends with its last user");
}
