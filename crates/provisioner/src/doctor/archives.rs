//! Recorded archives beside the files that are there, in a directory or an object store.
//!
//! A registry that was restored from an older backup does not know every file, and what it does not know may
//! be the last copy of a laboratory. So the manifest beside a dump is read before anything is said of it, and
//! no advice is to remove a dump.

use std::collections::{BTreeMap, HashMap};

use archive::{ArchiveError, Location, Manifest};
use model::{ArchiveId, OperationId, TenantId};
use registry::{Archive, OperationFilter, PAGE_MAX};

use super::{
    finding::{Finding, FindingKind},
    registry_checks::moment,
    registry_state::UnderWay,
};
use crate::{Inner, ProvisionError};

/// How the name of a manifest ends.
const MANIFEST: &str = "manifest.json";
/// How many manifests of unknown dumps are read in one examination: each may have megabytes.
const MANIFESTS_READ_MAX: usize = 200;

/// What is stored, by location, with its size in bytes: one listing.
struct Stored {
    files: HashMap<String, u64>,
}

impl Stored {
    /// The size of what is at a location, also of one outside the listed store: archives may have been made
    /// with another one.
    async fn size(&self, location: &Location) -> Result<Option<u64>, ArchiveError> {
        match self.files.get(&location.to_string()) {
            Some(&bytes) => Ok(Some(bytes)),
            None => location.size().await,
        }
    }
}

/// What is wrong with the archives, and how many are recorded.
pub(super) async fn findings(
    inner: &Inner,
    under_way: &UnderWay,
) -> Result<(Vec<Finding>, usize), ProvisionError> {
    // Files first: an archive is whole before it is recorded.
    let listed = async { Ok::<_, ProvisionError>(inner.store()?.list().await?) };
    let mut stored = match listed.await {
        Ok(files) => Stored { files },
        Err(error) => {
            let options = &inner.config.archive;
            let location = options
                .url
                .clone()
                .unwrap_or_else(|| inner.config.archive_dir.to_string_lossy().into_owned());
            let advice = "see to it that this process may read where TENANTRY_ARCHIVE_URL or \
                          TENANTRY_ARCHIVE_DIR leads; no archive was looked at";
            let finding = Finding::new(FindingKind::ArchiveMissing, location, error.to_string(), advice);
            return Ok((vec![finding], 0));
        }
    };
    let (mut found, mut recorded, mut after) = (Vec::new(), 0, None);
    let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let client = inner.config.registry.client().await?;
        let page = registry::archives_list(&client, None, after, PAGE_MAX).await?;
        drop(client);
        for archive in &page {
            // One that is kept where this process cannot look says nothing about the others.
            let looked = async {
                let dump = Location::parse(&archive.location)?;
                if let Some(host) = inner.lies_elsewhere(&dump, archive.host.as_deref()).await {
                    *elsewhere.entry(host.to_owned()).or_default() += 1;
                    return Ok((Vec::new(), dump));
                }
                Ok::<_, ProvisionError>((compare(&stored, archive, &dump).await?, dump))
            };
            match looked.await {
                Ok((findings, dump)) => {
                    found.extend(findings);
                    stored.files.remove(&manifest_of(&dump).to_string());
                    stored.files.remove(&dump.to_string());
                }
                Err(error) => {
                    let advice =
                        "see to it that this process can reach where it is kept; it was not looked at";
                    let seen = format!("archive {}: {error}", archive.id);
                    let finding = Finding::new(FindingKind::ArchiveMissing, &archive.location, seen, advice);
                    found.push(finding.of(&archive.tenant_slug));
                }
            }
        }
        recorded += page.len();
        after = page.last().map(Archive::position);
        if page.len() < PAGE_MAX as usize {
            break;
        }
    }
    found.extend(
        elsewhere
            .iter()
            .map(|(host, count)| left_elsewhere(inner, host, *count)),
    );
    found.extend(unrecorded(inner, &stored, under_way).await?);
    Ok((found, recorded))
}

/// Archives of another host are neither missing nor whole: this one cannot tell.
fn left_elsewhere(inner: &Inner, host: &str, count: usize) -> Finding {
    let seen = format!(
        "{count} archives lie in a directory of host {host} that {} cannot look into",
        inner.host
    );
    let advice = format!(
        "run the doctor on {host} to have them looked at; to restore them from every host, set archive.url \
         (TENANTRY_ARCHIVE_URL) to a store that all hosts share, or mount that directory on all of them \
         under the same path"
    );
    Finding::new(FindingKind::ArchiveElsewhere, host, seen, advice)
}

fn manifest_of(dump: &Location) -> Location {
    dump.sibling(MANIFEST)
}

async fn compare(
    stored: &Stored,
    archive: &Archive,
    dump: &Location,
) -> Result<Vec<Finding>, ProvisionError> {
    let mut found = Vec::new();
    let bring_back = format!(
        "bring it back from a copy of the archives; its SHA-256 must be {}",
        archive.sha256
    );
    let seen_of = |what: &str| format!("archive {} of {}: {what}", archive.id, archive.tenant_slug);
    match stored.size(dump).await? {
        None => {
            let seen = seen_of("the file is not there");
            found.push(Finding::new(
                FindingKind::ArchiveMissing,
                &archive.location,
                seen,
                &bring_back,
            ));
        }
        Some(bytes) if bytes != archive.bytes => {
            let seen = seen_of(&format!(
                "it has {bytes} bytes and had {} when it was verified",
                archive.bytes
            ));
            found.push(Finding::new(
                FindingKind::ArchiveSizeDiffers,
                &archive.location,
                seen,
                &bring_back,
            ));
        }
        Some(_) => {}
    }
    let manifest = manifest_of(dump);
    if stored.size(&manifest).await?.is_none() {
        let advice = format!(
            "write it again: `tenantctl archives show {} --json` prints it under \"manifest\"",
            archive.id
        );
        let subject = manifest.to_string();
        let seen = seen_of("its manifest is not there");
        found.push(Finding::new(FindingKind::ArchiveMissing, subject, seen, advice));
    }
    Ok(found
        .into_iter()
        .map(|finding| finding.of(&archive.tenant_slug))
        .collect())
}

/// Files that no archive is recorded for and that no operation writes. A manifest beside its dump is told
/// with the dump.
async fn unrecorded(
    inner: &Inner,
    stored: &Stored,
    under_way: &UnderWay,
) -> Result<Vec<Finding>, ProvisionError> {
    let mut found: Vec<Finding> = Vec::new();
    let mut read = 0;
    for (path, bytes) in &stored.files {
        let Ok(location) = Location::parse(path) else {
            continue;
        };
        let name = location.file_name();
        let has_its_dump = ["dump", "dump.age"]
            .iter()
            .any(|ending| stored.files.contains_key(&location.sibling(ending).to_string()));
        let is_beside_its_dump = name.ends_with(MANIFEST) && has_its_dump;
        // An archive has the id of its operation, and is in a directory that has its laboratory's.
        let operation = name
            .split('.')
            .next()
            .and_then(|id| id.parse::<OperationId>().ok());
        if is_beside_its_dump || is_somebodys(inner, &location, operation, under_way).await? {
            continue;
        }
        let is_dump = name.ends_with(".dump") || name.ends_with(".dump.age");
        let (seen, advice) = if is_dump {
            read += 1;
            let manifest = match read {
                ..=MANIFESTS_READ_MAX => Manifest::read(&location).await.map_err(|error| error.to_string()),
                _ => Err(format!("only the first {MANIFESTS_READ_MAX} manifests are read")),
            };
            of_dump(path, *bytes, manifest)
        } else if name.ends_with(MANIFEST) {
            (
                "no archive is recorded for this manifest, and its dump is not beside it".to_owned(),
                "bring the dump back beside it from a copy of the archives, then `tenantctl archives import` \
                 takes both into the registry"
                    .to_owned(),
            )
        } else if name.ends_with(".part") {
            (
                format!("a file of {bytes} bytes that was never finished: its writer was cut off"),
                "`tenantctl operations list --live` shows whether an operation still writes it; otherwise it \
                 is no copy of anything, and rm takes it away"
                    .to_owned(),
            )
        } else {
            (
                format!(
                    "no archive is recorded for this file of {bytes} bytes, and it is neither a dump nor a \
                     manifest"
                ),
                "look what it is; only archives belong here".to_owned(),
            )
        };
        found.push(Finding::new(FindingKind::ArchiveUnrecorded, path, seen, advice));
    }
    Ok(found)
}

/// What is said of a dump that the registry does not know, by what its manifest says of it.
fn of_dump(location: &str, bytes: u64, manifest: Result<Manifest, String>) -> (String, String) {
    let manifest =
        match manifest {
            Ok(manifest) => manifest,
            Err(why) => {
                return (
                format!("no archive is recorded for this dump of {bytes} bytes, and what its manifest says \
                         is not known: {why}"),
                "keep it, it may be the last copy of a laboratory: bring its manifest back beside it and \
                 import it (`tenantctl archives import`); `pg_restore --list` shows what is in it"
                    .to_owned(),
            );
            }
        };
    let verification = manifest.verified_at.map_or_else(
        || "it was never verified".to_owned(),
        |at| format!("it was restored and compared at {}", moment(at)),
    );
    let seen = format!(
        "the registry does not know this archive of {} ({}), dumped at {}; {verification}",
        manifest.slug,
        manifest.tenant,
        moment(manifest.dumped_at)
    );
    if manifest.bytes != bytes {
        let advice = format!(
            "it has {bytes} bytes and its manifest says {}: keep it, and bring the whole file back from a \
             copy of the archives; its SHA-256 must be {}",
            manifest.bytes, manifest.sha256
        );
        return (seen, advice);
    }
    let advice = format!(
        "`tenantctl archives import {location}` verifies it and takes it into the registry; until then keep \
         both files, they may be the last copy"
    );
    (seen, advice)
}

/// Whether an operation works on the file, also one that began since; or has removed or recorded it by now.
async fn is_somebodys(
    inner: &Inner,
    location: &Location,
    operation: Option<OperationId>,
    under_way: &UnderWay,
) -> Result<bool, ProvisionError> {
    let path = location.to_string();
    let folder = path.rsplit('/').nth(1).unwrap_or_default();
    let tenant = folder.parse::<TenantId>().ok();
    if tenant.is_some_and(|id| under_way.concerns(id)) || operation.is_some_and(|id| under_way.has(id)) {
        return Ok(true);
    }
    let client = inner.config.registry.client().await?;
    if let Some(id) = tenant {
        let live = OperationFilter {
            tenant: Some(id),
            live: true,
            ..OperationFilter::default()
        };
        if !registry::operations_list(&client, &live, None, 1)
            .await?
            .is_empty()
        {
            return Ok(true);
        }
    }
    if let Some(id) = operation {
        let now = registry::operation_by_id(&client, id).await?;
        let works = now.is_some_and(|operation| !operation.status.is_final());
        if works
            || registry::archive_by_id(&client, ArchiveId::from(id.as_uuid()))
                .await?
                .is_some()
        {
            return Ok(true);
        }
    }
    Ok(location.size().await?.is_none())
}
