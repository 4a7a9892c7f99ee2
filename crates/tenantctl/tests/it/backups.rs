//! Archives from the terminal: made, scheduled, verified, restored in three ways, and pruned.

use std::path::Path;

use serde_json::{Value, json};
use testkit::Space;

use crate::ctl::Ctl;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// What is in the laboratory's staff list beside its admin.
async fn staff(space: &Space, slug: &str) -> Vec<String> {
    let database = format!("{}_tenant_{slug}", space.namespace.as_str());
    let limit = std::time::Duration::from_secs(30);
    let client = pg::connect(&space.server.with_database(database), "test", limit)
        .await
        .unwrap();
    let sql = "SELECT display_name FROM staff WHERE role <> 'lab_admin' ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn hire(space: &Space, slug: &str, name: &str) {
    let database = format!("{}_tenant_{slug}", space.namespace.as_str());
    let limit = std::time::Duration::from_secs(30);
    let client = pg::connect(&space.server.with_database(database), "test", limit)
        .await
        .unwrap();
    let sql = "INSERT INTO staff (id, display_name, email, role)
               VALUES (gen_random_uuid(), $1, $1 || '@example.org', 'technician')";
    client.execute(sql, &[&name]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_verified_and_restored_in_three_ways() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    hire(&space, "acme-lab", "Tina").await;
    let made = ctl.json(0, &["backup", "acme-lab", "--reason", "before the move"]);
    assert_eq!(made["operation"]["status"], "succeeded", "{made}");
    let archive = text(&made["archive"]["id"]).to_owned();
    assert_eq!(made["archive"]["madeFor"], "backup");
    assert!(Path::new(text(&made["archive"]["location"])).exists(), "{made}");
    let said = ctl.run(&["backup", "acme-lab"]).expect(0);
    assert!(said.stdout.contains("is backed up: archive "), "{said:?}");
    let left = ctl.json(0, &["backup", "acme-lab", "--no-wait"]);
    assert_eq!(left["archive"], json!(null));
    let waiting = text(&left["operation"]["id"]);
    let busy = ctl.run(&["backup", "acme-lab"]).expect(5);
    assert!(busy.stderr.contains("operation"), "{busy:?}");
    ctl.run(&["operations", "watch", waiting]).expect(0);
    ctl.run(&["backup"]).expect(2);
    ctl.run(&["backup", "no-such-lab"]).expect(4);

    // Listed and verified once more.
    let listed = ctl.json(0, &["archives", "list", "--tenant", "acme-lab"]);
    assert_eq!(listed["archives"].as_array().unwrap().len(), 3);
    let rows = ctl.run(&["archives", "list"]).expect(0).stdout;
    assert!(rows.starts_with("ID") && rows.contains(&archive), "{rows}");
    let verified = ctl.json(0, &["archives", "verify", &archive]);
    assert!(text(&verified["archive"]["verifiedAt"]) > text(&made["archive"]["verifiedAt"]));
    let said = ctl.run(&["archives", "verify", &archive]).expect(0);
    assert!(said.stdout.contains("holds what its manifest says"), "{said:?}");
    let unknown = "0190a5b0-0000-7000-8000-000000000001";
    for args in [["archives", "verify", unknown], ["archives", "show", unknown]] {
        ctl.run(&args).expect(4);
    }
    let none = ctl.run(&["restore", unknown]).expect(4);
    assert!(none.stderr.contains("archives list"), "{none:?}");

    // Beside itself; under its own name only when that is free.
    let copy = ctl.json(0, &["restore", &archive, "--as", "acme-copy"]);
    assert_eq!(
        (&copy["tenant"]["slug"], &copy["tenant"]["status"]),
        (&json!("acme-copy"), &json!("active"))
    );
    assert_eq!(copy["archiveId"], archive.as_str());
    assert_eq!(staff(&space, "acme-copy").await, ["Tina"]);
    let taken = ctl.run(&["restore", &archive]).expect(5);
    assert!(taken.stderr.contains("--in-place"), "{taken:?}");

    // In place of what it holds, which is kept in an archive; only when confirmed.
    hire(&space, "acme-lab", "Tom").await;
    let in_place = ["restore", archive.as_str(), "--in-place"];
    let unconfirmed = ctl.run(&in_place).expect(2);
    assert!(
        unconfirmed.stderr.contains("--confirm acme-lab"),
        "{unconfirmed:?}"
    );
    let wrong = ctl
        .run(&[&in_place[..], &["--confirm", "bravo-lab"]].concat())
        .expect(2);
    assert!(wrong.stderr.contains("nothing was changed"), "{wrong:?}");
    assert_eq!(staff(&space, "acme-lab").await, ["Tina", "Tom"]);
    let replaced = ctl
        .run(&[&in_place[..], &["--confirm", "acme-lab"]].concat())
        .expect(0);
    assert!(
        replaced.stderr.contains("what it held before is archive "),
        "{replaced:?}"
    );
    assert_eq!(staff(&space, "acme-lab").await, ["Tina"]);
    ctl.run(&["restore", &archive, "--as", "x-lab", "--in-place"])
        .expect(2);
    ctl.run(&["restore", &archive, "--confirm", "acme-lab"]).expect(2);

    // Gone, and back under the same id.
    let id = text(&ctl.json(0, &["show", "acme-lab"])["tenant"]["id"]).to_owned();
    let removed = ctl.json(0, &["offboard", "acme-lab", "--now", "--confirm", "acme-lab"]);
    let last = text(&removed["archive"]["id"]);
    let back = ctl.json(0, &["restore", last, "--reason", "they came back"]);
    assert_eq!(
        (&back["tenant"]["id"], &back["tenant"]["status"]),
        (&json!(id), &json!("active"))
    );
    assert_eq!(staff(&space, "acme-lab").await, ["Tina"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_set_shown_and_ended_and_pruning_keeps_what_it_says() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let schedule = ["backup", "schedule", "acme-lab"];
    let with = |rest: &[&'static str]| [&schedule[..], rest].concat();
    // Before there is a schedule: each backup prunes by it.
    for _ in 0..3 {
        ctl.run(&["backup", "acme-lab"]).expect(0);
    }
    assert_eq!(ctl.json(0, &schedule)["schedule"], json!(null));
    assert_eq!(ctl.json(0, &["backup", "schedules"]), json!({"schedules": []}));
    let set = ctl.json(0, &with(&["--every", "1d", "--keep-last", "1"]));
    assert_eq!(
        (
            &set["schedule"]["everySeconds"],
            &set["schedule"]["keepLast"],
            &set["schedule"]["keepForSeconds"]
        ),
        (&json!(86_400), &json!(1), &json!(null))
    );
    assert_eq!(ctl.json(0, &schedule)["schedule"], set["schedule"]);
    let said = ctl.run(&schedule).expect(0);
    assert!(said.stdout.contains("is backed up every 1d"), "{said:?}");
    let all = ctl.run(&["backup", "schedules"]).expect(0).stdout;
    assert!(all.contains("acme-lab") && all.contains("1d"), "{all}");
    for (wrong, says) in [
        (&["--every", "59m"][..], "hour"),
        (&["--every", "soon"], "write it as 30d"),
        (&["--every", "1d", "--keep-last", "0"], "1..=10000"),
        (&["--keep-for", "30d"], "--every"),
        (&["--every", "1d", "--off"], "cannot be used with"),
    ] {
        let refused = ctl.run(&with(wrong)).expect(2);
        assert!(refused.stderr.contains(says), "{says}: {refused:?}");
    }
    ctl.run(&["backup", "schedule", "no-such-lab", "--off"]).expect(4);

    // One is kept: the others go, first only in words.
    let ids = |listed: &Value| -> Vec<String> {
        let archives = listed["archives"].as_array().unwrap();
        archives
            .iter()
            .map(|archive| text(&archive["id"]).to_owned())
            .collect()
    };
    let before = ids(&ctl.json(0, &["archives", "list"]));
    assert_eq!(before.len(), 3);
    let dry = ctl.json(0, &["archives", "prune", "--dry-run"]);
    assert_eq!((&dry["dryRun"], ids(&dry).len()), (&json!(true), 2));
    assert_eq!(ids(&ctl.json(0, &["archives", "list"])), before);
    let pruned = ctl.json(0, &["archives", "prune", "--tenant", "acme-lab"]);
    let mut gone = ids(&pruned);
    gone.sort();
    let mut older = before[1..].to_vec();
    older.sort();
    assert_eq!(gone, older, "the newest stays");
    for archive in pruned["archives"].as_array().unwrap() {
        assert!(!Path::new(text(&archive["location"])).exists(), "{archive}");
    }
    assert_eq!(ids(&ctl.json(0, &["archives", "list"])), before[..1]);
    assert_eq!(ids(&ctl.json(0, &["archives", "prune"])).len(), 0);

    // Ended: nothing more is removed.
    assert_eq!(ctl.json(0, &with(&["--off"]))["schedule"], json!(null));
    let said = ctl.run(&schedule).expect(0);
    assert!(said.stdout.contains("not backed up by itself"), "{said:?}");
    ctl.run(&["backup", "acme-lab"]).expect(0);
    assert_eq!(ids(&ctl.json(0, &["archives", "prune"])).len(), 0);
}
