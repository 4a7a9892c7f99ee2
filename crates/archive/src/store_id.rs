//! What tells two hosts whether they write archives into the same store.

use std::{
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use uuid::Uuid;

use crate::{ArchiveError, Location, Store, files};

/// Its name at the root of a local store. Archives lie one folder below, so it is never taken for one.
const NAME: &str = "tenantry-store";

impl Store {
    /// Whether a location lies in the store, as `<root>/<folder>/<name>`.
    #[must_use]
    pub fn holds(&self, location: &Location) -> bool {
        let (root, location) = (self.root().to_string(), location.to_string());
        let root = root.trim_end_matches('/');
        let inside = location
            .strip_prefix(root)
            .and_then(|rest| rest.strip_prefix('/'));
        inside.is_some_and(|rest| {
            let parts: Vec<&str> = rest.split('/').collect();
            parts.len() == 2
                && parts
                    .iter()
                    .all(|part| !part.is_empty() && !part.starts_with('.'))
        })
    }

    /// The store's identity: the URL of an object store, or for a directory an id that is kept in it and made
    /// at the first question. Two hosts that mount the same directory read the same, wherever they mount it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`] when the directory cannot be read or written.
    pub async fn identity(&self) -> Result<String, ArchiveError> {
        let root: &Location = self.root();
        let Some(directory) = root.local() else {
            return Ok(root.to_string());
        };
        let directory = directory.to_owned();
        files::blocking(move || {
            files::prepare_directory(&directory)?;
            let id = marked(&directory).map_err(ArchiveError::io("marking", &directory))?;
            Ok(format!("directory {id}"))
        })
        .await
    }
}

/// Whole or not there, and never replaced: of several processes that make it at once, one wins and all read
/// the same.
fn marked(directory: &Path) -> std::io::Result<Uuid> {
    let file = directory.join(NAME);
    if !file.exists() {
        let id = Uuid::new_v4();
        let part = directory.join(format!("{NAME}.{id}.part"));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut made| {
                made.write_all(format!("{id}\n").as_bytes())?;
                made.sync_all()
            })
            .and_then(|()| match std::fs::hard_link(&part, &file) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            });
        let removed = std::fs::remove_file(&part);
        written.and(removed)?;
    }
    let text = std::fs::read_to_string(&file)?;
    let malformed = |_| std::io::Error::new(ErrorKind::InvalidData, format!("{NAME} in it holds no id"));
    Uuid::parse_str(text.trim()).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_store_is_one_folder_below_its_root() {
        let store = Store::open("/srv/archives").unwrap();
        let holds = |location: &str| store.holds(&Location::parse(location).unwrap());
        assert!(holds("/srv/archives/lab/a.dump"));
        for outside in [
            "/srv/archives/a.dump",
            "/srv/archives-old/lab/a.dump",
            "/srv/archives/../etc/a.dump",
            "/srv/archives/lab/deep/a.dump",
            "/etc/passwd",
        ] {
            assert!(!holds(outside), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_directory_has_one_identity_and_two_directories_have_two() {
        let dir = tempfile::tempdir().unwrap();
        let store = |name: &str| Store::open(&dir.path().join(name).to_string_lossy()).unwrap();
        let first = store("one").identity().await.unwrap();
        assert_eq!(store("one").identity().await.unwrap(), first);
        assert_ne!(store("two").identity().await.unwrap(), first);
        assert!(store("one").list().await.unwrap().is_empty(), "it is no archive");
        // Mounted somewhere else it is still the same.
        std::fs::rename(dir.path().join("one"), dir.path().join("mounted")).unwrap();
        assert_eq!(store("mounted").identity().await.unwrap(), first);
        let ids: Vec<_> = (0..8)
            .map(|_| {
                let directory = dir.path().join("race");
                std::fs::create_dir_all(&directory).unwrap();
                std::thread::spawn(move || marked(&directory).unwrap())
            })
            .collect();
        let mut ids: Vec<_> = ids.into_iter().map(|one| one.join().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(std::fs::read_dir(dir.path().join("race")).unwrap().count(), 1);
    }
}
