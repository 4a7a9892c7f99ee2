//! `docs/losing-the-registry.md`, executed block by block: a registry is lost and restored from an older
//! backup, and all that came and went since is found again.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use testkit::Space;

use crate::ctl::{Ctl, Said};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/losing-the-registry.md");

/// The blocks of the document that are marked with this word, in their order.
fn blocks(word: &str) -> String {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let begin = format!("```sh {word}\n");
    let found = text
        .split(&begin)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let found: Vec<&str> = found.collect();
    assert!(!found.is_empty(), "no block is marked {word:?}");
    found.join("\n")
}

impl Ctl {
    /// Runs these blocks in one shell that stops at the first error.
    fn shell(&self, word: &str, safe: &Path) -> Said {
        let program = Path::new(env!("CARGO_BIN_EXE_tenantctl")).parent().unwrap();
        let mut path = program.display().to_string();
        if let Some(client_programs) = testkit::pg_bin() {
            path = format!("{path}:{}", client_programs.display());
        }
        let command = self.command(&[]);
        let script = format!("{}\n{}", blocks("settings"), blocks(word));
        let own = std::env::var("PATH").unwrap();
        let output = std::process::Command::new("sh")
            .args(["-eu", "-c", &script])
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
            )
            .env("PATH", format!("{path}:{own}"))
            .env("SAFE", safe)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said::of(&output)
    }
}

fn slugs(listed: &Value) -> Vec<String> {
    let tenants = listed["tenants"].as_array().unwrap_or_else(|| panic!("{listed}"));
    let mut slugs: Vec<String> = tenants
        .iter()
        .map(|tenant| {
            format!(
                "{} {}",
                tenant["slug"].as_str().unwrap(),
                tenant["status"].as_str().unwrap()
            )
        })
        .collect();
    slugs.sort();
    slugs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_bring_back_what_came_and_went_since_the_backup() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let safe = space.dir().join("safe");
    std::fs::create_dir(&safe).unwrap();
    ctl.provision("kept-lab");
    ctl.provision("removed-lab");
    ctl.run(&["backup", "kept-lab"]).expect(0);
    // At the time of the backup a removal waits; it is cancelled afterwards.
    ctl.run(&["offboard", "kept-lab", "--grace", "30d", "--yes"])
        .expect(0);
    let said = ctl.shell("before", &safe).expect(0);
    assert!(
        safe.join("registry.dump").exists() && safe.join("keys").is_dir(),
        "{said:?}"
    );
    let waiting = ctl.json(0, &["operations", "list", "--tenant", "kept-lab", "--live"]);
    let waiting = waiting["operations"][0]["id"].as_str().unwrap();
    ctl.run(&["operations", "cancel", waiting]).expect(0);

    // Since then: one was made, one was removed, one came and went.
    let later = ctl.provision("later-lab")["tenant"]["id"].clone();
    ctl.run(&["backup", "later-lab"]).expect(0);
    ctl.run(&["offboard", "removed-lab", "--now", "--confirm", "removed-lab"])
        .expect(0);
    let short = ctl.provision("short-lab")["tenant"]["id"].clone();
    ctl.run(&["offboard", "short-lab", "--now", "--confirm", "short-lab"])
        .expect(0);
    let archives = |listed: &Value| -> Vec<String> {
        let archives = listed["archives"].as_array().unwrap().iter();
        archives
            .map(|archive| archive["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut before = archives(&ctl.json(0, &["archives", "list"]));
    before.sort();

    let said = ctl.shell("after", &safe).expect(0);
    let listed = ctl.json(0, &["list"]);
    assert_eq!(
        slugs(&listed),
        ["kept-lab active", "later-lab active"],
        "{said:?}"
    );
    assert_eq!(ctl.json(0, &["show", "later-lab"])["tenant"]["id"], later);
    let mut after = archives(&ctl.json(0, &["archives", "list"]));
    after.sort();
    assert_eq!(after, before, "{said:?}");
    // The one that came and went comes back from its archive.
    let of_short = ctl.json(0, &["archives", "list", "--tenant", "short-lab"]);
    let last = archives(&of_short).remove(0);
    let back = ctl.json(0, &["restore", &last]);
    assert_eq!(
        (&back["tenant"]["id"], &back["tenant"]["status"]),
        (&short, &json!("active"))
    );
    ctl.run(&["doctor", "--deep"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_laboratory_whose_database_is_gone_and_whose_archive_is_kept_is_forgotten() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("here-lab");
    let confirm = ["forget", "here-lab", "--confirm", "here-lab"];
    let refused = ctl.run(&confirm).expect(5);
    assert!(refused.stderr.contains("is there"), "{refused:?}");
    ctl.run(&["forget", "here-lab", "--confirm", "other"]).expect(2);
    let database = format!("{}_tenant_here-lab", space.namespace.as_str());
    let limit = std::time::Duration::from_secs(30);
    let client = pg::connect(&space.server, "test", limit).await.unwrap();
    let drop = format!("DROP DATABASE {} WITH (FORCE)", model::quote_ident(&database));
    client.batch_execute(&drop).await.unwrap();
    let refused = ctl.run(&confirm).expect(5);
    assert!(refused.stderr.contains("no archive"), "{refused:?}");
    assert_eq!(slugs(&ctl.json(0, &["list"])), ["here-lab active"]);
}
