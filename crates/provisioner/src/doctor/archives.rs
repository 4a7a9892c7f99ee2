//! Recorded archives beside the files that are there. Where archives are is asked in one place, [`Stored`]; nothing else here
//! knows that they are files.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use model::{ArchiveId, OperationId, TenantId};
use registry::{Archive, OperationFilter, PAGE_MAX};

use super::{
    facts::UnderWay,
    finding::{Ailment, Finding},
};
use crate::{Inner, ProvisionError};

const MANIFEST: &str = ".manifest.json";

/// What is stored, by location, with its size in bytes: one listing for each laboratory.
struct Stored {
    files: HashMap<PathBuf, u64>,
}

impl Stored {
    async fn list(dir: &Path) -> Result<Self, ProvisionError> {
        let dir = std::path::absolute(dir).map_err(ProvisionError::io("finding", dir))?;
        let failed = ProvisionError::io("listing", dir.clone());
        let listing = tokio::task::spawn_blocking(move || list(&dir)).await;
        let files = listing.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        Ok(Self {
            files: files.map_err(failed)?,
        })
    }

    /// The size of what is at a location, also of one outside the directory: archives may have been made with another one.
    async fn size(&self, location: &Path) -> Option<u64> {
        match self.files.get(location) {
            Some(&bytes) => Some(bytes),
            None => tokio::fs::metadata(location).await.ok().map(|meta| meta.len()),
        }
    }
}

fn list(dir: &Path) -> std::io::Result<HashMap<PathBuf, u64>> {
    let mut files = HashMap::new();
    let laboratories = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // Made with the first archive.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for laboratory in laboratories {
        let laboratory = laboratory?;
        if !laboratory.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(laboratory.path())? {
            let file = file?;
            // One that is renamed or removed at this moment is somebody's at work.
            if let Ok(meta) = file.metadata()
                && meta.is_file()
            {
                files.insert(file.path(), meta.len());
            }
        }
    }
    Ok(files)
}

/// What is wrong with the archives, and how many are recorded.
pub(super) async fn findings(
    inner: &Inner,
    under_way: &UnderWay,
) -> Result<(Vec<Finding>, usize), ProvisionError> {
    // Files first: an archive is whole before it is recorded.
    let mut stored = match Stored::list(&inner.config.archive_dir).await {
        Ok(stored) => stored,
        Err(error) => {
            let dir = inner.config.archive_dir.to_string_lossy();
            let advice =
                "see to it that this process may read TENANTRY_ARCHIVE_DIR; no archive was looked at";
            return Ok((
                vec![Finding::new(
                    Ailment::ArchiveMissing,
                    dir,
                    error.to_string(),
                    advice,
                )],
                0,
            ));
        }
    };
    let (mut found, mut recorded, mut before) = (Vec::new(), 0, None);
    loop {
        let client = inner.config.registry.client().await?;
        let page = registry::archives_list(&client, None, before, PAGE_MAX).await?;
        drop(client);
        for archive in &page {
            found.extend(compare(&stored, archive).await);
            let dump = PathBuf::from(&archive.location);
            stored.files.remove(&manifest_of(&dump));
            stored.files.remove(&dump);
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

fn manifest_of(dump: &Path) -> PathBuf {
    dump.with_extension("manifest.json")
}

async fn compare(stored: &Stored, archive: &Archive) -> Vec<Finding> {
    let mut found = Vec::new();
    let dump = PathBuf::from(&archive.location);
    let bring_back = format!(
        "bring it back from a copy of the archive directory; its SHA-256 must be {}",
        archive.sha256
    );
    let seen_of = |what: &str| format!("archive {} of {}: {what}", archive.id, archive.tenant_slug);
    match stored.size(&dump).await {
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
    let manifest = manifest_of(&dump);
    if stored.size(&manifest).await.is_none() {
        let advice = format!(
            "write it again: `tenantctl archives show {} --json` prints it under \"manifest\"",
            archive.id
        );
        let subject = manifest.to_string_lossy().into_owned();
        let seen = seen_of("its manifest is not there");
        found.push(Finding::new(Ailment::ArchiveMissing, subject, seen, advice));
    }
    found
        .into_iter()
        .map(|finding| finding.of(&archive.tenant_slug))
        .collect()
}

/// Files that no archive is recorded for and that no operation writes.
async fn unrecorded(
    inner: &Inner,
    stored: &Stored,
    under_way: &UnderWay,
) -> Result<Vec<Finding>, ProvisionError> {
    let mut found: Vec<Finding> = Vec::new();
    for (path, bytes) in &stored.files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_beside_its_dump = name.strip_suffix(MANIFEST).is_some_and(|stem| {
            stored
                .files
                .contains_key(&path.with_file_name(format!("{stem}.dump")))
        });
        // An archive has the id of its operation, and is in a directory that has its laboratory's.
        let operation = name
            .split('.')
            .next()
            .and_then(|id| id.parse::<OperationId>().ok());
        if is_beside_its_dump || is_somebodys(inner, path, operation, under_way).await? {
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
            path.to_string_lossy(),
            format!("no archive is recorded for this file of {bytes} bytes: it was never proved"),
            format!("{whose}; when nobody needs it, remove it by hand"),
        ));
    }
    Ok(found)
}

/// Whether an operation works on the file, also one that began since; or has removed or recorded it by now.
async fn is_somebodys(
    inner: &Inner,
    path: &Path,
    operation: Option<OperationId>,
    under_way: &UnderWay,
) -> Result<bool, ProvisionError> {
    let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
    let tenant = directory.to_string_lossy().parse::<TenantId>().ok();
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
    Ok(tokio::fs::metadata(path).await.is_err())
}
