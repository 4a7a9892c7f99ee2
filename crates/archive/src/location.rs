//! Where archives lie: a local directory, or an object store behind a URL. One interface for both, because a
//! file's recorded location outlives the configuration: an archive is found where it was put, also when new
//! ones go elsewhere.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, multipart::MultipartStore, path::Path as ObjectPath,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;
use url::Url;

use crate::{ArchiveError, dump::OnProgress, files};

/// What is read of a file at once: each read of a local one waits for another thread.
const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Where new archives go.
#[derive(Clone)]
pub struct Store {
    root: Location,
}

/// One file's location, in a directory or an object store. It prints as what the registry keeps: a path or a
/// URL.
#[derive(Clone)]
pub struct Location {
    kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Local(PathBuf),
    Remote(Remote),
}

/// An object in a store. Credentials come from the environment, as `object_store` reads them.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) multipart: Arc<dyn MultipartStore>,
    pub(crate) path: ObjectPath,
    /// `s3://bucket`: what stands before the path.
    pub(crate) base: String,
}

impl Remote {
    pub(crate) fn failed(&self, doing: &'static str) -> impl FnOnce(object_store::Error) -> ArchiveError {
        let location = self.to_string();
        move |error| ArchiveError::Store {
            doing,
            location,
            // The store's own client has tried again already; what it says then is mostly the network.
            passing: matches!(error, object_store::Error::Generic { .. }),
            why: error.to_string(),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Local(path) => path.display().fmt(f),
            Kind::Remote(remote) => remote.fmt(f),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

impl Store {
    /// The store behind a directory's path or a URL.
    ///
    /// # Errors
    /// [`ArchiveError::BadUrl`].
    pub fn open(url: &str) -> Result<Self, ArchiveError> {
        Ok(Self {
            root: Location::parse(url)?,
        })
    }

    pub(crate) fn root(&self) -> &Location {
        &self.root
    }

    /// The location of one file: `<root>/<folder>/<name>`. Both are names without slashes.
    #[must_use]
    pub fn location(&self, folder: &str, name: &str) -> Location {
        let kind = match &self.root.kind {
            Kind::Local(root) => Kind::Local(root.join(folder).join(name)),
            Kind::Remote(remote) => Kind::Remote(Remote {
                path: remote.path.clone().join(folder).join(name),
                ..remote.clone()
            }),
        };
        Location { kind }
    }

    /// Makes ready to write in it, and refuses a store in which nothing can be written.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn prepare(&self) -> Result<(), ArchiveError> {
        match &self.root.kind {
            Kind::Local(root) => {
                let root = root.clone();
                tokio::task::spawn_blocking(move || files::try_writing(&root))
                    .await
                    .unwrap_or_else(|error| {
                        Err(ArchiveError::io("writing to", Path::new("the archive store"))(
                            std::io::Error::other(error),
                        ))
                    })
            }
            Kind::Remote(remote) => {
                let kind = Kind::Remote(Remote {
                    path: remote.path.clone().join("store"),
                    ..remote.clone()
                });
                Location { kind }.prepare().await
            }
        }
    }

    /// Everything in it, by location, with its size in bytes: one listing, which holds a few hundred bytes in
    /// memory for each file. What is written or removed meanwhile may be in it or not. A local file of
    /// another form than `<folder>/<name>` is nobody's and left out.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn list(&self) -> Result<HashMap<String, u64>, ArchiveError> {
        match &self.root.kind {
            Kind::Local(root) => {
                let path = root.clone();
                let listing = tokio::task::spawn_blocking(move || files::list(&path)).await;
                listing
                    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                    .map_err(ArchiveError::io("listing", root))
            }
            Kind::Remote(remote) => {
                let found = remote.objects.list(Some(&remote.path));
                let named = found.map_ok(|meta| (format!("{}/{}", remote.base, meta.location), meta.size));
                named.try_collect().await.map_err(remote.failed("listing"))
            }
        }
    }
}

impl Location {
    /// The file's size in bytes; `None` when it is not there.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn size(&self) -> Result<Option<u64>, ArchiveError> {
        match &self.kind {
            Kind::Local(path) => match tokio::fs::metadata(path).await {
                Ok(meta) => Ok(Some(meta.len())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ArchiveError::io("looking at", path)(error)),
            },
            Kind::Remote(remote) => match remote.objects.head(&remote.path).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(remote.failed("looking at")(error)),
            },
        }
    }

    /// The location that a text names: an absolute path or a URL.
    ///
    /// # Errors
    /// [`ArchiveError::BadUrl`].
    pub fn parse(text: &str) -> Result<Self, ArchiveError> {
        let bad = |why: String| ArchiveError::BadUrl {
            url: text.to_owned(),
            why,
        };
        if !text.contains("://") {
            let path = std::path::absolute(text).map_err(|error| bad(error.to_string()))?;
            return Ok(Self {
                kind: Kind::Local(path),
            });
        }
        let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        if url.scheme() == "file" {
            let path = url
                .to_file_path()
                .map_err(|()| bad("it names no directory of this machine".to_owned()))?;
            return Ok(Self {
                kind: Kind::Local(path),
            });
        }
        let path = ObjectPath::from_url_path(url.path()).map_err(|error| bad(error.to_string()))?;
        let host = url
            .host_str()
            .ok_or_else(|| bad("it names no bucket".to_owned()))?;
        let base = format!("{}://{host}", url.scheme());
        let refused = |error: object_store::Error| bad(error.to_string());
        let (objects, multipart): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) = match url.scheme() {
            "s3" => both(
                AmazonS3Builder::from_env()
                    .with_url(&base)
                    .build()
                    .map_err(refused)?,
            ),
            "gs" => both(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(&base)
                    .build()
                    .map_err(refused)?,
            ),
            "az" => both(
                MicrosoftAzureBuilder::from_env()
                    .with_url(&base)
                    .build()
                    .map_err(refused)?,
            ),
            other => return Err(bad(format!("{other}:// is not known"))),
        };
        Ok(Self {
            kind: Kind::Remote(Remote {
                objects,
                multipart,
                path,
                base,
            }),
        })
    }

    /// The file of the same archive with another ending: everything after the name's first dot is replaced.
    #[must_use]
    pub fn sibling(&self, ending: &str) -> Self {
        let renamed = |name: &str| format!("{}.{ending}", name.split('.').next().unwrap_or_default());
        let kind = match &self.kind {
            Kind::Local(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Kind::Local(path.with_file_name(renamed(&name)))
            }
            Kind::Remote(remote) => {
                let name = remote.path.filename().unwrap_or_default().to_owned();
                let parts: Vec<_> = remote.path.parts().collect();
                let folder = ObjectPath::from_iter(
                    parts
                        .into_iter()
                        .rev()
                        .skip(1)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev(),
                );
                Kind::Remote(Remote {
                    path: folder.join(renamed(&name)),
                    ..remote.clone()
                })
            }
        };
        Self { kind }
    }

    /// Its name without folders.
    #[must_use]
    pub fn file_name(&self) -> String {
        match &self.kind {
            Kind::Local(path) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            Kind::Remote(remote) => remote.path.filename().unwrap_or_default().to_owned(),
        }
    }

    /// Its path, when it is a local file.
    #[must_use]
    pub fn local(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Local(path) => Some(path),
            Kind::Remote(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Makes ready to write here, and refuses a location where nothing can be written, before anything
    /// depends on it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn prepare(&self) -> Result<(), ArchiveError> {
        if let Kind::Local(path) = &self.kind
            && let Some(directory) = path.parent()
        {
            files::prepare_directory(directory)?;
        }
        let probe = self.probe();
        probe
            .put(b"written to see whether archives can be\n".to_vec())
            .await?;
        probe.remove().await
    }

    /// What [`Location::prepare`] writes and removes again.
    pub(crate) fn probe(&self) -> Self {
        self.sibling("writable")
    }

    /// Writes a small file whole or not at all.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn put(&self, content: Vec<u8>) -> Result<(), ArchiveError> {
        match &self.kind {
            Kind::Local(path) => files::write_whole(path, content).await,
            Kind::Remote(remote) => {
                let put = remote.objects.put(&remote.path, PutPayload::from(content)).await;
                put.map(drop).map_err(remote.failed("writing"))
            }
        }
    }

    /// Reads a small file, of `max` bytes at most; `None` when it is not there.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`] when it is larger; [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn get(&self, max: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(reader) = self.read_opt().await? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        reader
            .take(max + 1)
            .read_to_end(&mut content)
            .await
            .map_err(|error| self.unreadable(error))?;
        if content.len() as u64 > max {
            return Err(ArchiveError::broken(
                self,
                format!("it has more than {max} bytes"),
            ));
        }
        Ok(Some(content))
    }

    /// Removes the file; it may be gone already. A local file's unfinished part goes with it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn remove(&self) -> Result<(), ArchiveError> {
        match &self.kind {
            Kind::Local(path) => {
                files::remove(&files::part_of(path))?;
                files::remove(path)
            }
            Kind::Remote(remote) => match remote.objects.delete(&remote.path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(remote.failed("removing")(error)),
            },
        }
    }

    /// The file's content from its beginning.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`] when it is not there.
    pub(crate) async fn read(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>, ArchiveError> {
        let found = self.read_opt().await?;
        found.ok_or_else(|| ArchiveError::broken(self, "it is not there"))
    }

    async fn read_opt(&self) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, ArchiveError> {
        match &self.kind {
            Kind::Local(path) => match tokio::fs::File::open(path).await {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ArchiveError::io("reading", path)(error)),
            },
            Kind::Remote(remote) => match remote.objects.get(&remote.path).await {
                Ok(found) => {
                    let bytes = found.into_stream().map_err(std::io::Error::other);
                    Ok(Some(Box::new(StreamReader::new(bytes))))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(remote.failed("reading")(error)),
            },
        }
    }

    /// The file's size and SHA-256, telling how much is read.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`] when it is not there; [`ArchiveError::Io`], [`ArchiveError::Store`].
    pub async fn measure(&self, on_progress: OnProgress<'_>) -> Result<(u64, String), ArchiveError> {
        let mut source = self.read().await?;
        let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0_u64, vec![0; CHUNK_BYTES]);
        loop {
            let count = source
                .read(&mut chunk)
                .await
                .map_err(|error| self.unreadable(error))?;
            if count == 0 {
                return Ok((bytes, hex::encode(hash.finalize())));
            }
            hash.update(&chunk[..count]);
            bytes += count as u64;
            on_progress(bytes);
        }
    }

    /// Refuses a file that is not there, or not as it was recorded.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`].
    pub async fn require(&self, bytes: u64, sha256: &str) -> Result<(), ArchiveError> {
        match self.measure(&|_| {}).await? {
            (b, s) if b == bytes && s == sha256 => Ok(()),
            (b, _) if b != bytes => Err(ArchiveError::broken(
                self,
                format!("it has {b} bytes and not {bytes}"),
            )),
            _ => Err(ArchiveError::broken(self, "its content has changed")),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> ArchiveError {
        match &self.kind {
            Kind::Local(path) => ArchiveError::io("reading", path)(error),
            Kind::Remote(_) => ArchiveError::Store {
                doing: "reading",
                location: self.to_string(),
                why: error.to_string(),
                passing: true,
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn in_memory(store: Arc<object_store::memory::InMemory>, path: &str) -> Self {
        Self {
            kind: Kind::Remote(Remote {
                objects: store.clone(),
                multipart: store,
                path: ObjectPath::from(path),
                base: "memory://test".to_owned(),
            }),
        }
    }
}

fn both<S: ObjectStore + MultipartStore>(store: S) -> (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) {
    let store = Arc::new(store);
    (store.clone(), store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_says_where_a_file_is() {
        let store = Store::open("/srv/archives").unwrap();
        let location = store.location("lab", "a.dump.age");
        assert_eq!(location.to_string(), "/srv/archives/lab/a.dump.age");
        assert_eq!(
            location.sibling("manifest.json").to_string(),
            "/srv/archives/lab/a.manifest.json"
        );
        assert_eq!(Location::parse("file:///srv/x").unwrap().to_string(), "/srv/x");
        for bad in ["ftp://host/x", "s3://", "http://[x"] {
            let error = Location::parse(bad).unwrap_err().to_string();
            assert!(error.contains("s3://bucket/prefix"), "{error}");
        }
        let location = Location::in_memory(Arc::default(), "pre/lab/a.dump");
        assert_eq!(location.to_string(), "memory://test/pre/lab/a.dump");
        assert_eq!(
            location.sibling("manifest.json").to_string(),
            "memory://test/pre/lab/a.manifest.json"
        );
        assert_eq!(location.file_name(), "a.dump");
    }

    #[tokio::test]
    async fn what_is_not_there_or_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let local = Location::parse(dir.path().join("a.dump").to_str().unwrap()).unwrap();
        for location in [local, Location::in_memory(Arc::default(), "a.dump")] {
            location.prepare().await.unwrap();
            let gone = location.require(2, "").await.unwrap_err().to_string();
            assert!(gone.contains("it is not there"), "{gone}");
            location.put(b"{}".to_vec()).await.unwrap();
            let (bytes, sha256) = location.measure(&|_| {}).await.unwrap();
            assert_eq!((bytes, &sha256[..8]), (2, "44136fa3"));
            location.require(2, &sha256).await.unwrap();
            location.put(b"[]".to_vec()).await.unwrap();
            let changed = location.require(2, &sha256).await.unwrap_err().to_string();
            assert!(changed.contains("its content has changed"), "{changed}");
            assert!(location.get(1).await.is_err());
            location.remove().await.unwrap();
            location.remove().await.unwrap();
            assert!(location.get(10).await.unwrap().is_none());
        }
    }
}
