//! What lies where in a cluster's directory, and how those files are written: whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::EmbeddedError;

/// The name of the server's log.
pub(crate) const LOG: &str = "server.log";
/// The log is put aside at a start when it has grown beyond this.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of the log an error shows.
const TAIL_BYTES: u64 = 4 * 1024;

/// The directory of one cluster; the path is canonical, so that every process means the same by it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
}

/// What a guest must know beside the password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) port: u16,
    pub(crate) bin: PathBuf,
}

impl Layout {
    /// Makes the directory if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, EmbeddedError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(EmbeddedError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(EmbeddedError::file("resolve", dir))?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where initdb works; it becomes [`Layout::data`] when it is whole.
    pub(crate) fn data_unfinished(&self) -> PathBuf {
        self.dir.join("data.unfinished")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    pub(crate) fn supervisor(&self) -> PathBuf {
        self.dir.join("supervisor.sh")
    }

    pub(crate) fn owner_lock(&self) -> PathBuf {
        self.dir.join("owner.lock")
    }

    pub(crate) fn server_lock(&self) -> PathBuf {
        self.dir.join("server.lock")
    }

    pub(crate) fn password(&self) -> PathBuf {
        self.dir.join("password")
    }

    fn endpoint(&self) -> PathBuf {
        self.dir.join("endpoint.json")
    }

    fn port(&self) -> PathBuf {
        self.dir.join("port")
    }

    /// The major version that made the data, if there are any.
    pub(crate) fn data_major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// The password of the superuser. One that is there is kept; without data a new one is made.
    pub(crate) fn password_ensure(&self) -> Result<SecretString, EmbeddedError> {
        match self.password_read() {
            Ok(password) => return Ok(password),
            Err(error) if self.data().exists() => return Err(error),
            Err(EmbeddedError::PasswordLost { .. }) => {}
            Err(error) => return Err(error),
        }
        // 256 bits, so that no one can guess it at any number of hash rounds.
        let bytes: [u8; 32] = rand::random();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write_whole(&self.password(), text.as_bytes(), 0o600)?;
        Ok(SecretString::from(text))
    }

    pub(crate) fn password_read(&self) -> Result<SecretString, EmbeddedError> {
        let path = self.password();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(EmbeddedError::file("read", path)(error)),
        };
        match text.trim() {
            "" => Err(EmbeddedError::PasswordLost { path }),
            password => Ok(SecretString::from(password.to_owned())),
        }
    }

    pub(crate) fn password_file_for_initdb(&self, password: &SecretString) -> Result<PathBuf, EmbeddedError> {
        let path = self.dir.join("password.initdb");
        write_whole(&path, password.expose_secret().as_bytes(), 0o600)?;
        Ok(path)
    }

    pub(crate) fn endpoint_write(&self, endpoint: &Endpoint) -> Result<(), EmbeddedError> {
        let text = serde_json::to_vec(endpoint).expect("a port and a path have a JSON form");
        write_whole(&self.endpoint(), &text, 0o600)
    }

    /// `None` while there is no running server, or its owner is about to say where it is.
    pub(crate) fn endpoint_read(&self) -> Option<Endpoint> {
        serde_json::from_slice(&fs::read(self.endpoint()).ok()?).ok()
    }

    pub(crate) fn endpoint_remove(&self) -> Result<(), EmbeddedError> {
        remove_file(&self.endpoint())
    }

    /// The port of the last start where it is still free, so that addresses that people noted stay right;
    /// else a free one.
    pub(crate) fn port_choose(&self, attempt: u32) -> Result<u16, EmbeddedError> {
        let kept = fs::read_to_string(self.port())
            .ok()
            .and_then(|text| text.trim().parse::<u16>().ok())
            .filter(|port| *port != 0 && attempt == 0);
        if let Some(port) = kept
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            return Ok(port);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(EmbeddedError::file("find a free TCP port for", &self.dir))?
            .port();
        write_whole(&self.port(), port.to_string().as_bytes(), 0o600)?;
        Ok(port)
    }

    /// Opens the log for the server's account and returns its length, where the next start begins.
    pub(crate) fn log_open(&self, account: &crate::account::Account) -> Result<u64, EmbeddedError> {
        let path = self.log();
        let length = path.metadata().map_or(0, |meta| meta.len());
        if length > LOG_BYTES_MAX {
            let old = self.dir.join("server.log.1");
            fs::rename(&path, old).map_err(EmbeddedError::file("rotate", &path))?;
        }
        // 0600: a failed statement is logged with its text, and that may hold secrets.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(EmbeddedError::file("open", &path))?;
        account.own(&path)?;
        file.metadata()
            .map(|meta| meta.len())
            .map_err(EmbeddedError::file("read", &path))
    }

    /// How many bytes the server can still write; `None` where that cannot be told.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(self.dir()).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// What the log says from `start` on, at most the last few lines.
    pub(crate) fn log_tail(&self, start: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }
}

/// What PostgreSQL needs to recover and go on: two segments of its log, of 16 MiB each.
pub(crate) const ROOM_MIN: u64 = 32 * 1024 * 1024;

/// Opens a lock file without taking the lock.
pub(crate) fn lock_open(path: &Path) -> Result<File, EmbeddedError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(EmbeddedError::file("open", path))
}

/// Tries to take the lock; it is released when the last copy of this open file is closed, in whatever
/// process.
pub(crate) fn lock_take(file: &File, path: &Path) -> Result<bool, EmbeddedError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(EmbeddedError::file("lock", path)(source)),
    }
}

/// Whether nobody holds the lock. The look holds it together with other looks for a moment; who wants it for
/// himself tries again.
pub(crate) fn lock_is_free(path: &Path) -> Result<bool, EmbeddedError> {
    match lock_open(path)?.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(EmbeddedError::file("lock", path)(source)),
    }
}

/// Writes a file beside its place and renames it, so that a crash leaves the old one or the new one.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), EmbeddedError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    // One that a crash left behind may have another owner or mode.
    remove_file(&beside)?;
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(EmbeddedError::file("write", path))
}

/// Removes a file; that it is not there is as good.
pub(crate) fn remove_file(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EmbeddedError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with all in it; that it is not there is as good.
pub(crate) fn remove_dir(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EmbeddedError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
