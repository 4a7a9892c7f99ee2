//! Recorded archives beside the files that are there, in a directory or an object store.

use std::collections::HashMap;

use archive::{ArchiveError, Place};
use model::{ArchiveId, OperationId, TenantId};
use registry::{Archive, OperationFilter, PAGE_MAX};

use super::{
    facts::UnderWay,
    finding::{Ailment, Finding},
};
use crate::{Inner, ProvisionError};

/// How the name of a manifest ends.
const MANIFEST: &str = "manifest.json";

/// What is stored, by location, with its size in bytes: one listing.
struct Stored {
    files: HashMap<String, u64>,
}

impl Stored {
    /// The size of what is at a location, also of one outside the listed store: archives may have been made with another one.
    async fn size(&self, place: &Place) -> Result<Option<u64>, ArchiveError> {
        match self.files.get(&place.to_string()) {
            Some(&bytes) => Ok(Some(bytes)),
            None => place.size().await,
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
            let place = options
                .url
                .clone()
                .unwrap_or_else(|| inner.config.archive_dir.to_string_lossy().into_owned());
            let advice = "see to it that this process may read where TENANTRY_ARCHIVE_URL or TENANTRY_ARCHIVE_DIR leads; no \
                          archive was looked at";
            let finding = Finding::new(Ailment::ArchiveMissing, place, error.to_string(), advice);
            return Ok((vec![finding], 0));
        }
    };
    let (mut found, mut recorded, mut before) = (Vec::new(), 0, None);
    loop {
        let client = inner.config.registry.client().await?;
        let page = registry::archives_list(&client, None, before, PAGE_MAX).await?;
        drop(client);
        for archive in &page {
            // One that is kept where this process cannot look says nothing about the others.
            let looked = async {
                let dump = Place::parse(&archive.location)?;
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
                    let finding = Finding::new(Ailment::ArchiveMissing, &archive.location, seen, advice);
                    found.push(finding.of(&archive.tenant_slug));
                }
            }
        }
        recorded += page.len();
        before = page.last().map(|archive| archive.id);
        if page.len() < PAGE_MAX as usize {
            break;
        }
    }
    found.extend(unrecorded(inner, &stored, under_way).await?);
    Ok((found, recorded))
}

fn manifest_of(dump: &Place) -> Place {
    dump.sibling(MANIFEST)
}

async fn compare(stored: &Stored, archive: &Archive, dump: &Place) -> Result<Vec<Finding>, ProvisionError> {
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
                Ailment::ArchiveMissing,
                &archive.location,
                seen,
                &bring_back,
            ));
        }
        Some(bytes) if bytes != archive.bytes => {
            let seen = seen_of(&format!(
                "it has {bytes} bytes and had {} when it was proved",
                archive.bytes
            ));
            found.push(Finding::new(
                Ailment::ArchiveSizeDiffers,
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
        found.push(Finding::new(Ailment::ArchiveMissing, subject, seen, advice));
    }
    Ok(found
        .into_iter()
        .map(|finding| finding.of(&archive.tenant_slug))
        .collect())
}

/// Files that no archive is recorded for and that no operation writes.
async fn unrecorded(
    inner: &Inner,
    stored: &Stored,
    under_way: &UnderWay,
) -> Result<Vec<Finding>, ProvisionError> {
    let mut found: Vec<Finding> = Vec::new();
    for (location, bytes) in &stored.files {
        let Ok(place) = Place::parse(location) else {
            continue;
        };
        let name = place.file_name();
        let has_its_dump = ["dump", "dump.age"]
            .iter()
            .any(|ending| stored.files.contains_key(&place.sibling(ending).to_string()));
        let is_beside_its_dump = name.ends_with(MANIFEST) && has_its_dump;
        // An archive has the id of its operation, and is in a directory that has its laboratory's.
        let operation = name
            .split('.')
            .next()
            .and_then(|id| id.parse::<OperationId>().ok());
        if is_beside_its_dump || is_somebodys(inner, &place, operation, under_way).await? {
            continue;
        }
        let whose = operation.map_or_else(
            || "look what it is".to_owned(),
            |id| {
                format!(
                    "`tenantctl operations show {id}` shows the operation that wrote it, if there was one"
                )
            },
        );
        found.push(Finding::new(
            Ailment::ArchiveUnrecorded,
            location,
            format!("no archive is recorded for this file of {bytes} bytes: it was never proved"),
            format!("{whose}; when nobody needs it, remove it by hand"),
        ));
    }
    Ok(found)
}

/// Whether an operation works on the file, also one that began since; or has removed or recorded it by now.
async fn is_somebodys(
    inner: &Inner,
    place: &Place,
    operation: Option<OperationId>,
    under_way: &UnderWay,
) -> Result<bool, ProvisionError> {
    let location = place.to_string();
    let folder = location.rsplit('/').nth(1).unwrap_or_default();
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
    Ok(place.size().await?.is_none())
}
