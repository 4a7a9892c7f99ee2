//! Local files: private, and whole or not there. A file is written as `….part`, synced, and only then
//! renamed.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::ArchiveError;

pub(crate) fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Makes the directory; no other account on the machine may look inside. Each directory's name is on the disk
/// when this returns, those of its parents that had to be made too.
pub(crate) fn prepare_directory(directory: &Path) -> Result<(), ArchiveError> {
    let io = |path: &Path| ArchiveError::io("making the directory", path.to_owned());
    let missing = directory.ancestors().take_while(|d| !d.exists()).count();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io(directory))?;
    // The last one also when it was there: whoever made it may have died before this.
    for made in directory.ancestors().take(missing.max(1)) {
        sync_directory_of(made).map_err(io(made))?;
    }
    Ok(())
}

/// Whether a file can be written in this directory, which is made where it is missing. The file has no name
/// where the system can do that, so any number of callers try at once, and nothing is left of one that is
/// killed.
pub(crate) fn try_writing(directory: &Path) -> Result<(), ArchiveError> {
    prepare_directory(directory)?;
    let io = || ArchiveError::io("writing to", directory);
    let mut file = tempfile::tempfile_in(directory).map_err(io())?;
    file.write_all(b"written to see whether archives can be\n")
        .map_err(io())?;
    file.sync_all().map_err(io())
}

/// A fresh, empty file that only we can read. An earlier try's is unlinked first: should its writer still
/// live, it writes into nothing.
pub(crate) fn prepare_file(path: &Path) -> Result<File, ArchiveError> {
    remove(path)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(ArchiveError::io("creating", path))
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), ArchiveError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ArchiveError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a part the whole: on the disk first, then under its name, then the name on the disk.
pub(crate) async fn finish_file(part: &Path, file: &Path) -> Result<(), ArchiveError> {
    let (part, file) = (part.to_owned(), file.to_owned());
    blocking(move || {
        let synced = File::open(&part).and_then(|f| {
            f.set_permissions(Permissions::from_mode(0o600))?;
            f.sync_all()
        });
        synced
            .and_then(|()| std::fs::rename(&part, &file))
            .and_then(|()| sync_directory_of(&file))
            .map_err(ArchiveError::io("finishing", &file))
    })
    .await
}

fn sync_directory_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A part that could not be written for want of space is of no use, and would keep the disk full.
pub(crate) fn full(part: &Path, error: std::io::Error) -> ArchiveError {
    let error = ArchiveError::io("writing", part)(error);
    if matches!(error, ArchiveError::DiskFull { .. })
        && let Err(error) = remove(part)
    {
        tracing::warn!(path = %part.display(), %error, "an unfinished file could not be removed");
    }
    error
}

/// Writes a small file whole or not at all. When the caller is cancelled the writing may still be under way:
/// it goes into the file that was made here and makes no other, so nothing is left of it once the part is
/// removed.
pub(crate) async fn write_whole(file: &Path, content: Vec<u8>) -> Result<(), ArchiveError> {
    let part = part_of(file);
    let mut made = prepare_file(&part)?;
    let writing = part.clone();
    blocking(move || made.write_all(&content).map_err(|error| full(&writing, error))).await?;
    finish_file(&part, file).await
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(join) => Err(ArchiveError::Io {
            doing: "working on",
            path: PathBuf::from("a file"),
            source: std::io::Error::other(join),
        }),
    }
}

/// The files one folder below `root`, by path, with their sizes in bytes; none when there is no `root` yet.
pub(crate) fn list(root: &Path) -> std::io::Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    let folders = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for folder in folders {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder.path())? {
            let file = file?;
            // One that is renamed or removed at this moment is somebody's at work.
            if let Ok(meta) = file.metadata()
                && meta.is_file()
            {
                found.insert(file.path().to_string_lossy().into_owned(), meta.len());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_whole_and_private_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        std::fs::write(part_of(&file), "left over by a crash").unwrap();
        write_whole(&file, b"{}".to_vec()).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"{}");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!part_of(&file).exists());
    }

    #[test]
    fn what_is_removed_behind_a_writer_that_was_cancelled_stays_removed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("a.writable");
            // The only thread for such work is taken, so the writing waits behind it.
            let (let_go, held) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || held.recv());
            let mut writing = Box::pin(write_whole(&file, b"{}".to_vec()));
            assert!(futures_util::poll!(&mut writing).is_pending());
            assert!(part_of(&file).exists(), "it has begun");
            drop(writing);
            remove(&part_of(&file)).unwrap();

            drop(let_go);
            // Runs when all before it has ended.
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        });
    }

    #[test]
    fn what_there_was_no_room_for_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("a.part");
        for (kind, stays) in [
            (std::io::ErrorKind::StorageFull, false),
            (std::io::ErrorKind::Interrupted, true),
        ] {
            std::fs::write(&part, "half").unwrap();
            let error = full(&part, kind.into());
            assert_eq!(matches!(error, ArchiveError::DiskFull { .. }), !stays, "{error}");
            assert_eq!(part.exists(), stays);
        }
    }
}
