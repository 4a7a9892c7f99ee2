//! Backups of laboratories that go on working, their schedules, and what is kept of them.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use age::secrecy::ExposeSecret as _;
use archive::{Keys, Location, Manifest};
use model::TenantState;
use provisioner::{ProvisionError, Schedule};
use registry::{Archive, Tenant};
use tokio_postgres::SimpleQueryMessage;

use crate::{
    archive::files_in,
    harness::{Harness, by},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn schedule(keep_last: u32, keep_for: Option<Duration>) -> Option<Schedule> {
    Some(Schedule {
        every: HOUR,
        keep_last,
        keep_for,
    })
}

async fn manifest_of(archive: &Archive) -> Manifest {
    let location = Location::parse(&archive.location).unwrap();
    Manifest::require(&location, &archive.manifest).await.unwrap()
}

async fn verified_again(harness: &Harness, archive: &Archive) -> Result<(), String> {
    let (_, operation) = harness
        .provisioner
        .request_verify_archive(archive.id, by())
        .await
        .unwrap();
    let ended = harness.provisioner.run(operation, |_| {}).await;
    ended.map(drop).map_err(|error| error.to_string())
}

async fn archives(harness: &Harness, tenant: &Tenant) -> Vec<Archive> {
    let client = harness.registry.client().await.unwrap();
    registry::archives_list(&client, Some(tenant.id), None, 100)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_laboratory_is_archived_while_it_is_written_to() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("busy").await;
    let over = AtomicBool::new(false);
    let writing = async {
        let inside = harness.inside(&tenant).await;
        let mut count = 0_u32;
        while !over.load(Ordering::Relaxed) {
            let sql = format!(
                "INSERT INTO staff (id, display_name, email, role)
                 VALUES (gen_random_uuid(), 'P', 'p{count}@example.org', 'technician');
                 SELECT nextval('patient_mrn_seq')"
            );
            inside.batch_execute(&sql).await.unwrap();
            count += 1;
        }
        count
    };
    let archiving = async {
        let archive = harness.backed_up(&tenant).await;
        over.store(true, Ordering::Relaxed);
        archive
    };
    let (written, archive) = tokio::join!(writing, archiving);
    let manifest = manifest_of(&archive).await;
    let staff = manifest
        .contents
        .tables
        .iter()
        .find(|t| t.name == "public.staff")
        .unwrap();
    assert!(
        staff.rows <= u64::from(written) + 1,
        "{} of {written}",
        staff.rows
    );
    assert!(manifest.verified_at.is_some() && manifest.database_bytes > 1_000_000);
    assert_eq!(manifest.requested_by, "terminal:tester");
    // The programs are of the server's version.
    let major: u32 = manifest
        .server_version
        .split('.')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let best = if major >= 16 { "zstd" } else { "gzip" };
    assert_eq!(manifest.compression, best);
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    verified_again(&harness, &archive).await.unwrap();
}

#[tokio::test]
async fn a_cast_of_the_owners_never_stands_for_the_text_of_a_row() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("cast").await;
    let inside = harness.inside(&tenant).await;
    inside
        .batch_execute(
            "CREATE TYPE pair AS (a text, b numeric);
             CREATE TABLE one (word text); INSERT INTO one VALUES (NULL), (''), ('a, (b) \"c\"');
             CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES;
             CREATE TABLE odd (gone int, pair pair, pairs pair[], at timestamptz, \"tenantry row\" text);
             ALTER TABLE odd DROP COLUMN gone;
             INSERT INTO odd VALUES (('x', 1.00), ARRAY[('y', NULL)]::pair[], '2025-01-01 10:00+02', 'z'), (NULL, NULL, NULL, NULL)",
        )
        .await
        .unwrap();
    let mut sums = Vec::new();
    for table in ["bare", "odd", "one", "staff"] {
        let sql = format!(
            "SET timezone = 'UTC'; SELECT concat_ws(' ', sum(hashtextextended(t::text COLLATE \"C\", 1)),
                    sum(hashtextextended(t::text COLLATE \"C\", 2))) FROM {table} AS t"
        );
        let reported = inside.simple_query(&sql).await.unwrap();
        let sum = reported.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        sums.push((format!("public.{table}"), sum.unwrap()));
    }
    for of in ["one", "bare", "odd", "staff", "pair"] {
        let sql = format!(
            "CREATE FUNCTION caught({of}) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it was run'; END $$;
             CREATE CAST ({of} AS text) WITH FUNCTION caught({of}) AS IMPLICIT"
        );
        inside.batch_execute(&sql).await.unwrap();
    }
    let manifest = manifest_of(&harness.backed_up(&tenant).await).await;
    let reported = manifest.contents.tables.into_iter();
    let reported: Vec<_> = reported
        .map(|table| (table.name, table.checksum))
        .filter(|(name, _)| sums.iter().any(|(known, _)| known == name))
        .collect();
    assert_eq!(reported, sums);
    // The digest before DROP DATABASE is the same.
    harness.removed(&tenant).await;
}

#[tokio::test]
async fn an_archive_is_verified_again_also_when_its_laboratory_is_gone() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("gone").await;
    let archive = harness.removed(&tenant).await;
    verified_again(&harness, &archive).await.unwrap();
    let after = archives(&harness, &tenant).await.remove(0);
    assert!(after.verified_at > archive.verified_at);

    let file = Path::new(&archive.location);
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(file, &content).unwrap();
    let error = verified_again(&harness, &archive).await.unwrap_err();
    assert!(error.contains("cannot be trusted"), "{error}");
    assert_eq!(
        archives(&harness, &tenant).await[0].verified_at,
        after.verified_at
    );
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_encrypted_archive_holds_nothing_in_the_clear_and_needs_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let identity = age::x25519::Identity::generate();
    let file = dir.path().join("identity");
    std::fs::write(&file, identity.to_string().expose_secret()).unwrap();
    let keys = Keys {
        recipient: Some(identity.to_public().to_string()),
        identity_file: Some(file.clone()),
    };
    let harness = Harness::with(|config| {
        config.archive.keys = keys;
        config.archive.compression = archive::Compression::None;
    })
    .await;
    let tenant = harness.provisioned("secret").await;
    let archive = harness.backed_up(&tenant).await;
    assert!(archive.location.ends_with(".dump.age"), "{}", archive.location);
    let content = std::fs::read(&archive.location).unwrap();
    assert!(content.starts_with(b"age-encryption.org/v1"));
    let holds = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"PGDMP") && !holds(b"O'Neil"));
    verified_again(&harness, &archive).await.unwrap();
    assert_eq!(files_in(&harness.provisioner.config().archive_dir, "").len(), 2);

    let mut changed = content.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&archive.location, &changed).unwrap();
    let error = verified_again(&harness, &archive).await.unwrap_err();
    assert!(error.contains("its content has changed"), "{error}");
    std::fs::write(&archive.location, &content).unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = verified_again(&harness, &archive).await.unwrap_err();
    assert!(error.contains("archive.age_identity_file"), "{error}");
    // Without a way to verify it nothing is archived at all.
    let refused = harness
        .provisioner
        .request_backup(tenant.id, by())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("archive.age_identity_file"),
        "{refused}"
    );
}

#[tokio::test]
async fn only_what_a_schedule_does_not_keep_is_pruned_and_never_the_last() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("kept").await;
    let other = harness.provisioned("other").await;
    let first = harness.backed_up(&tenant).await;
    let second = harness.backed_up(&tenant).await;
    harness.backed_up(&other).await;
    harness.backed_up(&other).await;
    // Without a schedule everything is kept.
    assert!(
        harness
            .provisioner
            .prune_archives(None, by())
            .await
            .unwrap()
            .is_empty()
    );
    let set = |schedule| harness.provisioner.set_backup_schedule(tenant.id, schedule, by());
    set(schedule(1, Some(HOUR))).await.unwrap();
    assert!(
        harness
            .provisioner
            .prunable_archives(None)
            .await
            .unwrap()
            .is_empty(),
        "both are young"
    );
    set(schedule(1, None)).await.unwrap();
    let prunable = harness.provisioner.prunable_archives(None).await.unwrap();
    assert_eq!(prunable.iter().map(|a| a.id).collect::<Vec<_>>(), [first.id]);
    // The one that was verified last stays, also when it is the oldest.
    verified_again(&harness, &first).await.unwrap();
    assert!(
        harness
            .provisioner
            .prunable_archives(None)
            .await
            .unwrap()
            .is_empty()
    );
    verified_again(&harness, &second).await.unwrap();
    // A removal that was cut off when the files were gone.
    std::fs::remove_file(&first.location).unwrap();
    let pruned = harness.provisioner.prune_archives(None, by()).await.unwrap();
    assert_eq!(pruned.iter().map(|a| a.id).collect::<Vec<_>>(), [first.id]);
    let directory = harness
        .provisioner
        .config()
        .archive_dir
        .join(tenant.id.to_string());
    assert_eq!(files_in(&directory, "").len(), 2);
    // A backup prunes by itself.
    let third = harness.backed_up(&tenant).await;
    let left = archives(&harness, &tenant).await;
    assert_eq!(left.iter().map(|a| a.id).collect::<Vec<_>>(), [third.id]);
    assert_eq!(archives(&harness, &other).await.len(), 2);
    // Of a laboratory that is gone nothing is pruned.
    let last = harness.removed(&tenant).await;
    harness.provisioner.prune_archives(None, by()).await.unwrap();
    let left = archives(&harness, &tenant).await;
    assert_eq!(left.iter().map(|a| a.id).collect::<Vec<_>>(), [last.id, third.id]);
}

#[tokio::test]
async fn an_archive_that_is_being_restored_is_not_pruned() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("used").await;
    let first = harness.backed_up(&tenant).await;
    harness.backed_up(&tenant).await;
    let beside = provisioner::RestoreAs {
        slug: Some(model::Slug::parse("beside").unwrap()),
        server: None,
    };
    let (_, operation) = harness
        .provisioner
        .request_restore(first.id, beside.clone(), by())
        .await
        .unwrap();
    harness
        .provisioner
        .set_backup_schedule(tenant.id, schedule(1, None), by())
        .await
        .unwrap();
    assert!(
        harness
            .provisioner
            .prune_archives(None, by())
            .await
            .unwrap()
            .is_empty()
    );
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(
        harness
            .provisioner
            .prune_archives(None, by())
            .await
            .unwrap()
            .len(),
        1
    );
    let error = harness
        .provisioner
        .request_restore(first.id, beside, by())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no archive") || error.to_string().contains("archive"),
        "{error}"
    );
}

/// It failed behind its exchange and can be gone on with, which takes the archive once more.
#[tokio::test]
async fn an_archive_that_a_failed_restore_in_place_has_put_in_service_is_not_pruned() {
    let harness = Harness::with(|config| config.lease = crate::archive::LEASE).await;
    let tenant = harness.provisioned("halfway").await;
    let first = harness.backed_up(&tenant).await;
    harness.backed_up(&tenant).await;
    let asked = harness.provisioner.request_restore_in_place(first.id, by()).await;
    let (_, operation) = asked.unwrap();
    crate::crash::die_at(&harness, operation, "restore_in_place/swap_database/acted").await;
    let client = harness.registry.client().await.unwrap();
    let fail =
        "UPDATE operations SET status = 'failed', finished_at = now(), lease_owner = NULL, lease_until = NULL
        WHERE id = $1";
    client.execute(fail, &[&operation.as_uuid()]).await.unwrap();
    let set = harness
        .provisioner
        .set_backup_schedule(tenant.id, schedule(1, None), by());
    set.await.unwrap();
    let prunable = || harness.provisioner.prunable_archives(None);
    assert!(prunable().await.unwrap().is_empty());
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let now: Vec<_> = prunable().await.unwrap().iter().map(|a| a.id).collect();
    assert_eq!(now, [first.id]);
}

#[tokio::test]
async fn a_backup_that_is_due_is_asked_for_once_by_many_workers() {
    let harness = Harness::new().await;
    let mut scheduled = Vec::new();
    for at in 0..3 {
        let tenant = harness.provisioned(&format!("lab-{at}")).await;
        harness
            .provisioner
            .set_backup_schedule(tenant.id, schedule(2, None), by())
            .await
            .unwrap();
        scheduled.push(tenant);
    }
    harness.provisioner.suspend(scheduled[1].id, by()).await.unwrap();
    let all = futures_util::future::join_all((0..6).map(|_| harness.provisioner.request_due_backups())).await;
    let asked: Vec<_> = all.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(asked.len(), 3);
    assert!(
        harness
            .provisioner
            .request_due_backups()
            .await
            .unwrap()
            .is_empty()
    );
    for operation in asked {
        harness.provisioner.run(operation, |_| {}).await.unwrap();
    }
    let client = harness.registry.client().await.unwrap();
    let next = registry::backup_schedule_of(&client, scheduled[0].id)
        .await
        .unwrap()
        .unwrap();
    let left = next
        .next_at
        .duration_since(registry::registry_now(&client).await.unwrap());
    assert!(left > jiff::SignedDuration::from_mins(50), "{left}");
    // One that is being removed is not backed up.
    harness.removed(&scheduled[2]).await;
    let listed = registry::backup_schedules_list(&client, None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    harness
        .provisioner
        .set_backup_schedule(scheduled[0].id, None, by())
        .await
        .unwrap();
    assert!(
        registry::backup_schedule_of(&client, scheduled[0].id)
            .await
            .unwrap()
            .is_none()
    );
    for wrong in [
        Schedule {
            every: Duration::from_secs(60),
            keep_last: 1,
            keep_for: None,
        },
        Schedule {
            every: HOUR,
            keep_last: 0,
            keep_for: None,
        },
    ] {
        let refused = harness
            .provisioner
            .set_backup_schedule(scheduled[0].id, Some(wrong), by())
            .await;
        assert!(matches!(refused, Err(ProvisionError::Invalid { .. })));
    }
}

#[tokio::test]
async fn a_backup_that_is_cancelled_leaves_nothing() {
    let harness = Harness::with(|config| config.lease = crate::archive::LEASE).await;
    let tenant = harness.provisioned("unwanted").await;
    let operation = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
    crate::crash::die_at(&harness, operation, "backup/verify/scratch_made").await;
    harness.provisioner.cancel(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    assert!(archives(&harness, &tenant).await.is_empty());
    assert!(files_in(&harness.provisioner.config().archive_dir, "").is_empty());
    assert!(harness.serves(tenant.id).await);
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name == "tenant_unwanted"),
        "{leftovers:?}"
    );
}
