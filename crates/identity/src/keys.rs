//! The two keys of a control plane, in files that only its own account may read.
//!
//! A key's file appears whole or not at all, and never replaces another: of any number of processes that
//! start at once on an empty directory, one makes the key and all use it.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand::Rng;
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};

const KEY_BYTES: usize = 32;

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or the directory could not be read or written.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than the owner may read the key.
    #[error("{} can be read by others (mode {mode:03o}); run `chmod 600` on it, and replace the key if they did", .path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} is no {what}; put the right file back from a backup: without it what it sealed cannot be opened", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<SecretBox<[u8; KEY_BYTES]>>);

        impl $name {
            /// A new random key.
            #[must_use]
            pub fn generate() -> Self {
                Self(Arc::new(SecretBox::init_with_mut(|bytes: &mut [u8; KEY_BYTES]| {
                    rand::rng().fill_bytes(bytes);
                })))
            }

            /// A short name for the key, from which it cannot be found again.
            #[must_use]
            pub fn id(&self) -> String {
                hex::encode(self.id_bytes())
            }

            /// The name as bytes.
            pub(crate) fn id_bytes(&self) -> [u8; 4] {
                let digest = Sha256::new()
                    .chain_update(concat!("tenantry ", $what, " id"))
                    .chain_update(self.bytes())
                    .finalize();
                [digest[0], digest[1], digest[2], digest[3]]
            }

            pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
                self.0.expose_secret()
            }

            /// One line that says what it is, so that one key's file is never taken for the other's.
            fn to_text(&self) -> String {
                format!(concat!("tenantry ", $what, " v1: {}\n"), STANDARD.encode(self.bytes()))
            }

            fn from_text(text: &str) -> Option<Self> {
                let encoded = text.trim_end().strip_prefix(concat!("tenantry ", $what, " v1: "))?;
                let bytes: [u8; KEY_BYTES] = STANDARD.decode(encoded).ok()?.try_into().ok()?;
                Some(Self(Arc::new(SecretBox::new(Box::new(bytes)))))
            }

            /// The key, and whether it was made just now.
            fn open_or_create(path: &Path) -> Result<(Self, bool), KeyError> {
                if let Some(known) = Self::open(path)? {
                    return Ok((known, false));
                }
                let fresh = Self::generate();
                if create(path, &fresh.to_text())? {
                    return Ok((fresh, true));
                }
                // Another process was faster; its key is the one.
                let known = Self::open(path)?.ok_or_else(|| malformed(path, $what))?;
                Ok((known, false))
            }

            fn open(path: &Path) -> Result<Option<Self>, KeyError> {
                let Some(text) = read(path)? else {
                    return Ok(None);
                };
                Self::from_text(&text).map(Some).ok_or_else(|| malformed(path, $what))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(id {}, ***)"), self.id())
            }
        }
    };
}

key!(
    /// The key that seals secrets at rest.
    SealKey,
    "seal key"
);
key!(
    /// The key that signs tokens.
    SigningKey,
    "token key"
);

impl SealKey {
    /// Reads the key that a control plane made, for a process that only opens what is sealed: it makes none.
    /// It touches the disk.
    ///
    /// # Errors
    /// [`KeyError`] names the file, also when there is none.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let missing = || failed("read", path)(io::ErrorKind::NotFound.into());
        Self::open(path)?.ok_or_else(missing)
    }
}

/// The keys of one control plane: `seal.key` and `token.key` in one directory, mode 0600.
#[derive(Debug, Clone)]
pub struct KeyStore {
    seal: SealKey,
    token: SigningKey,
    /// Where the seal key lies, if it was made just now.
    seal_made: Option<PathBuf>,
}

impl KeyStore {
    /// Reads the keys, and makes those that are missing. It touches the disk: call it at the start, or on a
    /// blocking thread.
    ///
    /// # Errors
    /// [`KeyError`] names the file and what to do.
    pub fn open_or_create(dir: &Path) -> Result<Self, KeyError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("create the directory", dir))?;
        let path = dir.join("seal.key");
        let (seal, made) = SealKey::open_or_create(&path)?;
        let (token, _) = SigningKey::open_or_create(&dir.join("token.key"))?;
        Ok(Self {
            seal,
            token,
            seal_made: made.then_some(path),
        })
    }

    /// Takes the seal key's file away again if this store made it, and says whether it did: for a caller who
    /// finds secrets that were sealed with an earlier one. A key that was there before is never touched.
    ///
    /// # Errors
    /// [`KeyError`] names the file.
    pub fn discard_new_seal_key(&self) -> Result<bool, KeyError> {
        let Some(path) = &self.seal_made else {
            return Ok(false);
        };
        // An operator may have put the right one there meanwhile.
        if SealKey::open(path)?.is_none_or(|key| key.bytes() != self.seal.bytes()) {
            return Ok(false);
        }
        fs::remove_file(path).map_err(failed("remove", path))?;
        Ok(true)
    }

    /// The key that seals secrets at rest.
    #[must_use]
    pub fn seal_key(&self) -> SealKey {
        self.seal.clone()
    }

    /// The key that signs tokens.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        self.token.clone()
    }
}

fn read(path: &Path) -> Result<Option<String>, KeyError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyError::TooOpen { path, mode });
    }
    fs::read_to_string(path).map(Some).map_err(failed("read", path))
}

/// Makes the file, whole and on disk; `false` when it was there before.
fn create(path: &Path, text: &str) -> Result<bool, KeyError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    // tempfile makes it with mode 0600. Its name is not that of a key, so a crash here leaves nothing that
    // counts.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed("create a file in", dir))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed("write", file.path()))?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed("create", path)(error.error)),
    }
    // The name too must survive a power cut: what is sealed next would be lost with the key.
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("write", dir))?;
    Ok(true)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { doing, path, source }
}

fn malformed(path: &Path, what: &'static str) -> KeyError {
    let path = path.to_owned();
    KeyError::Malformed { path, what }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn many_that_create_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("state/keys");
        let start = Barrier::new(20);
        let ids: Vec<(String, String)> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                let store = KeyStore::open_or_create(&keys).unwrap();
                (store.seal_key().id(), store.signing_key().id())
            };
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|pair| *pair == ids[0]), "{ids:?}");
        let mut names: Vec<_> = fs::read_dir(&keys)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["seal.key", "token.key"], "no half-made file is left");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys.join("seal.key")), 0o600);
        assert_eq!(mode(&keys), 0o700);
    }

    #[test]
    fn the_same_keys_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = KeyStore::open_or_create(dir.path()).unwrap();
        let second = KeyStore::open_or_create(dir.path()).unwrap();
        assert_eq!(first.seal_key().bytes(), second.seal_key().bytes());
        assert_eq!(first.signing_key().bytes(), second.signing_key().bytes());
        assert_ne!(first.seal_key().bytes(), first.signing_key().bytes());
    }

    #[test]
    fn only_a_seal_key_that_was_made_just_now_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let first = KeyStore::open_or_create(dir.path()).unwrap();
        let second = KeyStore::open_or_create(dir.path()).unwrap();
        assert!(!second.discard_new_seal_key().unwrap());
        assert!(path.exists());
        assert!(first.discard_new_seal_key().unwrap());
        assert!(!path.exists());
        // The right one, put back between the making and the discarding, stays.
        let third = KeyStore::open_or_create(dir.path()).unwrap();
        fs::write(&path, first.seal_key().to_text()).unwrap();
        assert!(!third.discard_new_seal_key().unwrap());
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        KeyStore::open_or_create(dir.path()).unwrap();
        let path = dir.path().join("token.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyStore::open_or_create(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("token.key") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_key_is_neither_used_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        KeyStore::open_or_create(dir.path()).unwrap();
        let (seal, token) = (dir.path().join("seal.key"), dir.path().join("token.key"));
        for wrong in [
            String::new(),
            "tenantry seal key v1: AAAA\n".to_owned(),
            fs::read_to_string(&token).unwrap(),
        ] {
            fs::write(&seal, &wrong).unwrap();
            let error = KeyStore::open_or_create(dir.path()).unwrap_err();
            assert!(
                matches!(error, KeyError::Malformed { what: "seal key", .. }),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&seal).unwrap(), wrong);
        }
    }

    #[test]
    fn debug_shows_the_id_and_not_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open_or_create(dir.path()).unwrap();
        let shown = format!("{store:?}");
        assert!(shown.contains(&store.seal_key().id()), "{shown}");
        for bytes in [store.seal_key().bytes(), store.signing_key().bytes()] {
            assert!(
                !shown.contains(&STANDARD.encode(bytes)) && !shown.contains(&hex::encode(bytes)),
                "{shown}"
            );
        }
    }
}
