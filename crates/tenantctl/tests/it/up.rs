use std::{fs, os::unix::fs::PermissionsExt as _};

use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn up_becomes_the_tenantd_beside_it_and_hands_its_configuration_on() {
    let space = Space::new().await;
    let dir = space.dir().join("bin");
    fs::create_dir(&dir).unwrap();
    let program = dir.join("tenantctl");
    fs::copy(env!("CARGO_BIN_EXE_tenantctl"), &program).unwrap();
    let config = space.dir().join("my.toml");
    fs::write(&config, "[http]\nlisten = '127.0.0.1:7777'\n").unwrap();
    let ctl = Ctl::on(&space).installed_at(program);
    let up = ["up", "--config", config.to_str().unwrap()];

    let alone = ctl.run(&up).expect(1);
    assert!(alone.stderr.contains("no tenantd beside"), "{alone:?}");

    // Any program of that name shows what it is given, and that its exit code is ours.
    let tenantd = dir.join("tenantd");
    fs::write(&tenantd, "#!/bin/sh\necho \"$TENANTRY_CONFIG\" pid $$\nexit 7\n").unwrap();
    fs::set_permissions(&tenantd, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = ctl.command(&up);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let said = crate::ctl::Said::of(&child.wait_with_output().unwrap()).expect(7);
    assert_eq!(said.stdout.trim(), format!("{} pid {pid}", config.display()));
    for part in [
        "http://127.0.0.1:7777",
        "registry schema",
        "template",
        "tenantctl provision",
    ] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn the_embedded_server_is_made_used_and_stopped_by_each_command() {
    // The server runs as an unprivileged account when root starts it, and must be able to enter.
    let home = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let ctl = Ctl::bare(home.path());
    let steps = ctl.json(0, &["up", "--no-serve"]);
    assert_eq!(steps["prepared"].as_array().unwrap().len(), 5);
    let made = ctl.provision("acme-lab");
    assert_eq!(made["tenant"]["status"], "active");
    assert_eq!(ctl.json(0, &["list"])["tenants"][0]["slug"], "acme-lab");
    let postmaster = home.path().join("state/postgres/data/postmaster.pid");
    assert!(!postmaster.exists(), "the server is stopped when nobody uses it");
}
