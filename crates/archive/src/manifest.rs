//! What stands beside a dump, so that it can be judged and restored without the registry.

use jiff::Timestamp;
use model::{ArchiveId, OperationId, OperationKind, SchemaVersion, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{ArchiveError, Contents, Inventory, Location, Written};

/// The present form of the document. Form 1 had other checksums, and nothing could be verified without the
/// original.
pub const FORMAT: u32 = 2;
/// The largest manifest that is read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The manifest of one archive: `<archive id>.manifest.json` beside `<archive id>.dump`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The form of this document.
    pub format: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// What it was made for.
    pub made_for: OperationKind,
    /// The laboratory, as it was when it was archived.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// Its time zone.
    pub time_zone: String,
    /// The server that it lived on, as the registry called it.
    pub server: String,
    /// The database that was dumped.
    pub database: String,
    /// How large that was, in bytes.
    pub database_bytes: u64,
    /// The version in its own migration history.
    pub schema_version: SchemaVersion,
    /// The server's version.
    pub server_version: String,
    /// The program that wrote the dump.
    pub dumped_with: String,
    /// How the dump is compressed: gzip, zstd or none.
    pub compression: String,
    /// The age recipient for whom it is encrypted; absent when it is in the clear.
    pub encrypted_for: Option<String>,
    /// The dump's file name.
    pub file: String,
    /// Its size in bytes, as it lies there.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// What the database held in the snapshot that was dumped.
    #[serde(flatten)]
    pub contents: Contents,
    /// What the dump leaves out, and what a restore needs.
    #[serde(flatten)]
    pub inventory: Inventory,
    /// The laboratory's administrators, sealed by the installation's own key, in hex.
    pub admins: String,
    /// The operation that archived it.
    pub operation: OperationId,
    /// Who asked for it.
    pub requested_by: String,
    /// When the dump was whole.
    pub dumped_at: Timestamp,
    /// When a restored copy was found to hold the same; absent until then.
    pub verified_at: Option<Timestamp>,
}

impl Manifest {
    /// Writes it beside the dump.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn write(&self, dump: &Location) -> Result<(), ArchiveError> {
        let location = place_of(dump);
        let content =
            serde_json::to_vec_pretty(self).map_err(|error| ArchiveError::broken(&location, error))?;
        location.put(content).await
    }

    /// Reads the one beside the dump.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`] when it is not there, cannot be read or is in another form.
    pub async fn read(dump: &Location) -> Result<Self, ArchiveError> {
        let location = place_of(dump);
        let content = location.get(BYTES_MAX).await?;
        let content = content.ok_or_else(|| ArchiveError::broken(&location, "it is not there"))?;
        let value: Value = serde_json::from_slice(&content)
            .map_err(|error| ArchiveError::broken(&location, format!("it cannot be read: {error}")))?;
        let manifest = Self::from_value(value).map_err(|why| ArchiveError::broken(&location, why))?;
        if !manifest.contents.shape_is_whole() {
            return Err(ArchiveError::broken(&location, "its content has changed"));
        }
        Ok(manifest)
    }

    /// Takes a document for a manifest, if it is one in the present form.
    ///
    /// # Errors
    /// Says why not.
    pub fn from_value(value: Value) -> Result<Self, String> {
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(format!(
                    "its manifest is of form {format} and this version reads form {FORMAT}; restore it by \
                     hand with pg_restore"
                ));
            }
            None => return Err("its manifest names no form".to_owned()),
        }
        serde_json::from_value(value).map_err(|error| format!("it cannot be read: {error}"))
    }

    /// As the registry keeps it: all but the lines of the shape, whose checksum stands for them.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`], which no manifest gives.
    pub fn recorded(&self) -> Result<Value, ArchiveError> {
        let mut short = self.clone();
        short.contents.shape.clear();
        serde_json::to_value(&short).map_err(|error| ArchiveError::broken("manifest", error))
    }

    /// Refuses a manifest that is not there, or not as it was recorded.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`].
    pub async fn require(dump: &Location, recorded: &Value) -> Result<Self, ArchiveError> {
        let found = Self::read(dump).await?;
        if found.recorded()? == *recorded {
            return Ok(found);
        }
        Err(ArchiveError::broken(place_of(dump), "its content has changed"))
    }

    /// SHA-256 of all that is known when the dump is whole; verifying it changes nothing of that.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`], which no manifest gives.
    pub fn fingerprint(&self) -> Result<String, ArchiveError> {
        let unverified = Self {
            verified_at: None,
            ..self.clone()
        };
        let content =
            serde_json::to_vec(&unverified).map_err(|error| ArchiveError::broken("manifest", error))?;
        Ok(hex::encode(Sha256::digest(&content)))
    }

    /// The dump as it was written.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }
}

/// Removes an archive's files, the dump first: what is left of one that was cut off is a manifest that names
/// it.
impl Location {
    /// Removes the dump at this location with all that stands beside it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn remove_archive(&self) -> Result<(), ArchiveError> {
        self.remove().await?;
        // Whoever was killed while it tried whether something can be written here has left what it wrote.
        self.probe().remove().await?;
        place_of(self).remove().await
    }
}

fn place_of(dump: &Location) -> Location {
    dump.sibling("manifest.json")
}
