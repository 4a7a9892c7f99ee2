//! Checks what must be there against the registry, the server's catalogue and the archives' directory, with
//! statements of this program and not with the product's.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::{ArchiveId, TenantState};
use provisioner::FindingKind;
use uuid::Uuid;

use crate::{
    expected::Expected,
    harness::{Harness, SPARES},
};

/// How many people each laboratory gets once it is in service. Their rows must never be lost.
const PEOPLE: usize = 5;
/// How long to wait for spares: workers check them at their start and every half minute.
const SPARES_PATIENCE: Duration = Duration::from_secs(60);

/// Compares everything with what is expected, and adds people to laboratories that have come into service.
pub(crate) async fn check(harness: &Harness, expected: &mut Expected) -> anyhow::Result<()> {
    spares_settled(harness).await?;
    registry_rows(harness, expected).await?;
    databases_and_roles(harness, expected).await?;
    people(harness, expected).await?;
    archives(harness, expected).await?;
    doctor(harness).await
}

/// An unfinished spare whose worker was killed is removed when another worker checks.
async fn spares_settled(harness: &Harness) -> anyhow::Result<()> {
    let client = harness.connect("postgres").await?;
    let sql = "SELECT datname::text, starts_with(datname, 'lab_spare_making_')
                 FROM pg_database WHERE starts_with(datname, 'lab_spare_')";
    let since = Instant::now();
    loop {
        let rows = client.query(sql, &[]).await?;
        let unfinished = rows.iter().filter(|row| row.get(1)).count();
        if rows.len() <= SPARES && unfinished == 0 {
            return Ok(());
        }
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(
            since.elapsed() < SPARES_PATIENCE,
            "spares are left over, or {unfinished} of them unfinished: {names:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The product's own doctor must find nothing, like this program. A spare whose worker was killed may show up
/// only now, when the worker's session ends; the next check removes it.
async fn doctor(harness: &Harness) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        let report = harness.platform.provisioner.examine(false).await?;
        let findings = report.findings;
        if findings.is_empty() {
            return Ok(());
        }
        let only_spares = findings
            .iter()
            .all(|finding| finding.kind == FindingKind::StaleSpare);
        let described: Vec<String> = findings
            .iter()
            .map(|finding| format!("{:?} {}: {}", finding.kind, finding.subject, finding.seen))
            .collect();
        ensure!(
            only_spares && since.elapsed() < SPARES_PATIENCE,
            "the doctor says: {}",
            described.join("; ")
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn registry_rows(harness: &Harness, expected: &Expected) -> anyhow::Result<()> {
    let client = harness.registry().await?;
    let rows = client
        .query("SELECT id, slug::text, status FROM tenants", &[])
        .await?;
    let found: BTreeMap<Uuid, (String, String)> = rows
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect();
    let wanted: BTreeMap<Uuid, (String, String)> = expected
        .laboratories
        .values()
        .map(|lab| {
            (
                lab.id.as_uuid(),
                (lab.slug.to_string(), lab.state_now().to_string()),
            )
        })
        .collect();
    ensure!(
        found == wanted,
        "the registry has {found:?} and should have {wanted:?}"
    );
    let stuck = client
        .query(
            "SELECT id::text FROM operations WHERE lease_owner IS NOT NULL
                 OR (finished_at IS NULL AND waiting_until IS NULL)",
            &[],
        )
        .await?;
    ensure!(stuck.is_empty(), "{} operations are still under way", stuck.len());
    Ok(())
}

async fn databases_and_roles(harness: &Harness, expected: &Expected) -> anyhow::Result<()> {
    let client = harness.connect("postgres").await?;
    let names = async |sql: &str| -> anyhow::Result<BTreeSet<String>> {
        Ok(client
            .query(sql, &[])
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect())
    };
    let laboratories: BTreeSet<String> = expected
        .laboratories
        .values()
        .map(|lab| format!("lab_tenant_{}", lab.slug))
        .collect();
    let roles = names("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'lab_tenant_')").await?;
    ensure!(
        roles == laboratories,
        "the server has the roles {roles:?} and should have {laboratories:?}"
    );
    let all = names("SELECT datname::text FROM pg_database WHERE starts_with(datname, 'lab_')").await?;
    let (spares, rest): (BTreeSet<String>, BTreeSet<String>) =
        all.into_iter().partition(|name| name.starts_with("lab_spare_"));
    let rest: BTreeSet<String> = rest
        .into_iter()
        .filter(|name| !name.starts_with("lab_template_v"))
        .collect();
    ensure!(
        rest == laboratories,
        "the server has the databases {rest:?} and should have {laboratories:?}"
    );
    ensure!(
        spares.len() <= SPARES,
        "{} spares are there: {spares:?}",
        spares.len()
    );
    // Checks that each database can be entered by its own role and by no other.
    for lab in expected.laboratories.values() {
        let name = format!("lab_tenant_{}", lab.slug);
        let row = client
            .query_one(
                "SELECT rolcanlogin, has_database_privilege(r.oid, d.oid, 'CONNECT') AND d.datallowconn,
                        EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                                 WHERE a.grantee = 0)
                   FROM pg_roles r, pg_database d WHERE r.rolname = $1 AND d.datname = $1",
                &[&name],
            )
            .await?;
        let (log_in, connect, public): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let serves = lab.state_now() == TenantState::Active;
        ensure!(!public, "everybody may connect to {name}");
        ensure!(
            (log_in && connect) == serves,
            "{name} is {} and its role may log in: {log_in}, connect: {connect}",
            lab.state_now()
        );
    }
    Ok(())
}

/// Adds people to laboratories that have come into service, and checks that the others still have theirs.
async fn people(harness: &Harness, expected: &mut Expected) -> anyhow::Result<()> {
    for lab in expected.laboratories.values_mut() {
        if lab.state == TenantState::Deleting {
            continue;
        }
        let client = harness.connect(&format!("lab_tenant_{}", lab.slug)).await?;
        let read = async || -> anyhow::Result<BTreeSet<Uuid>> {
            let rows = client.query("SELECT id FROM staff", &[]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let found = read().await?;
        if lab.people.is_empty() {
            ensure!(
                found.len() == 1,
                "{} has {} people at its start",
                lab.slug,
                found.len()
            );
            for number in 0..PEOPLE {
                client
                    .execute(
                        "INSERT INTO staff (id, display_name, email, role)
                         VALUES (gen_random_uuid(), $1, $2, 'technician')",
                        &[
                            &format!("Person {number}"),
                            &format!("p{number}@{}.example", lab.slug),
                        ],
                    )
                    .await?;
            }
            lab.people = read().await?;
        } else {
            ensure!(
                found == lab.people,
                "{} lost people: {found:?} of {:?}",
                lab.slug,
                lab.people
            );
        }
    }
    Ok(())
}

/// Checks that each archive's files are there and as long as recorded, that the directory has no other files,
/// and that each laboratory that is gone has an archive with all its people.
async fn archives(harness: &Harness, expected: &mut Expected) -> anyhow::Result<()> {
    let rows = harness
        .registry()
        .await?
        .query(
            "SELECT tenant_id, location, bytes, manifest -> 'tables', id FROM archives ORDER BY id",
            &[],
        )
        .await?;
    let mut files = BTreeSet::new();
    let mut kept: BTreeMap<Uuid, (ArchiveId, u64)> = BTreeMap::new();
    for row in &rows {
        let (tenant, location, bytes): (Uuid, String, i64) = (row.get(0), row.get(1), row.get(2));
        let tables: Option<serde_json::Value> = row.get(3);
        let meta = std::fs::metadata(&location).with_context(|| location.clone())?;
        ensure!(
            i64::try_from(meta.len()) == Ok(bytes),
            "{location} has {} bytes of {bytes}",
            meta.len()
        );
        let staff = tables
            .iter()
            .filter_map(|tables| tables.as_array())
            .flatten()
            .find(|table| table["name"].as_str().is_some_and(|name| name.ends_with("staff")));
        let people = staff.and_then(|table| table["rows"].as_u64()).unwrap_or_default();
        kept.insert(tenant, (ArchiveId::from(row.get::<_, Uuid>(4)), people));
        // The dump, and the manifest beside it.
        files.insert(location.clone().into());
        files.insert(Path::new(&location).with_extension("manifest.json"));
    }
    for (tenant, laboratory) in &mut expected.gone {
        let (archive, rows) = kept
            .get(&tenant.as_uuid())
            .with_context(|| format!("laboratory {tenant} is gone and has no archive"))?;
        let people = u64::try_from(laboratory.people.len().max(1))?;
        ensure!(
            *rows >= people,
            "laboratory {tenant} is gone and its archive has {rows} of {people} people"
        );
        laboratory.archive = Some(*archive);
    }
    for laboratory in expected.laboratories.values_mut() {
        let newest = kept.get(&laboratory.id.as_uuid());
        let whole = u64::try_from(laboratory.people.len())?;
        laboratory.archive = newest
            .filter(|(_, rows)| whole > 0 && *rows == whole)
            .map(|(id, _)| *id);
    }
    let mut found = BTreeSet::new();
    let store = harness.dir().join("state/archives");
    collect(&store, &mut found)?;
    // The store's identity, which the first worker writes.
    found.remove(&store.join("tenantry-store"));
    let (left, lacking): (Vec<_>, Vec<_>) = (
        found.difference(&files).collect(),
        files.difference(&found).collect(),
    );
    ensure!(
        left.is_empty() && lacking.is_empty(),
        "files that belong to no archive: {left:?}; files that are not there: {lacking:?}"
    );
    Ok(())
}

fn collect(dir: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}
