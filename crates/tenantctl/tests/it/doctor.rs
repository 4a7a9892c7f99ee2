use std::io::Read as _;

use serde_json::json;
use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_and_mends_it() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let healthy = ctl.run(&["doctor", "--deep"]).expect(0);
    assert_eq!(healthy.stdout, "nothing is wrong\n");
    assert!(healthy.stderr.contains("1 laboratory,"), "{healthy:?}");

    let server = pg::connect(&space.server, "ctl test", std::time::Duration::from_secs(30))
        .await
        .unwrap();
    let role = model::quote_ident(&format!("{}_tenant_acme-lab", space.namespace.as_str()));
    server
        .batch_execute(&format!("ALTER ROLE {role} NOLOGIN"))
        .await
        .unwrap();
    let sick = ctl.run(&["doctor"]).expect(3);
    assert!(
        sick.stdout.contains("role_cannot_log_in")
            && sick.stdout.contains("doctor --fix")
            && sick.stderr.contains("--fix"),
        "{sick:?}"
    );
    let document = ctl.json(3, &["doctor"]);
    assert_eq!(document["findings"][0]["kind"], "role_cannot_log_in");
    assert_eq!(document["findings"][0]["severity"], "error");
    assert_eq!(document["findings"][0]["slug"], "acme-lab");
    assert_eq!(document["findings"][0]["mendable"], true);
    let mended = ctl.json(0, &["doctor", "--fix"]);
    assert_eq!(mended["findings"][0]["mended"], true);
    assert_eq!(ctl.json(0, &["doctor"])["findings"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laboratory_is_exported_to_a_new_file_and_to_no_other() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let file = space.dir().join("acme.zip");
    let path = file.to_str().unwrap();
    let told = ctl.json(0, &["export", "acme-lab", "--output", path]);
    let archive = std::fs::File::open(&file).unwrap();
    assert_eq!(told["bytes"], archive.metadata().unwrap().len());
    let mut zip = zip::ZipArchive::new(archive).unwrap();
    let mut profile = String::new();
    zip.by_name("data/lab_profile.csv")
        .unwrap()
        .read_to_string(&mut profile)
        .unwrap();
    assert!(profile.contains("Lab acme-lab"), "{profile}");

    let before = std::fs::read(&file).unwrap();
    ctl.json(5, &["export", "acme-lab", "--output", path]);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    ctl.json(
        4,
        &[
            "export",
            "bravo-lab",
            "--output",
            space.dir().join("b.zip").to_str().unwrap(),
        ],
    );
    let nowhere = space.dir().join("missing/c.zip");
    let failed = ctl
        .run(&["export", "acme-lab", "--output", nowhere.to_str().unwrap()])
        .expect(1);
    assert!(failed.stderr.contains("cannot write"), "{failed:?}");
    let left: Vec<_> = std::fs::read_dir(space.dir())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".part")),
        "{left:?}"
    );
}
