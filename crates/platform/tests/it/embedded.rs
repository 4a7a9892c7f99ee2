use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use platform::Platform;
use settings::Settings;
use testkit::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_takes_the_embedded_server_over_when_its_owner_ends() {
    // The server runs as an unprivileged account when root starts it, and must be able to enter.
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let env = [("TENANTRY_STATE_DIR".to_owned(), dir.path().display().to_string())];
    let settings = Settings::load(None, env).unwrap();
    let owner = Platform::open(&settings).await.unwrap();
    owner.prepare(|_| ()).await.unwrap();
    let guest = Platform::open(&settings).await.unwrap();
    guest.ready().await.unwrap();

    owner.close().await.unwrap();
    eventually("the guest runs the server", Duration::from_secs(60), async || {
        guest.ready().await.is_ok()
    })
    .await;
    let postmaster = dir.path().join("postgres/data/postmaster.pid");
    assert!(postmaster.exists());
    guest.close().await.unwrap();
    assert!(!postmaster.exists(), "it ends with its last user");
}
