//! The directory of a throw-away cluster: gone when its owner is done with it, also when the owner is killed.

use std::{
    fs::DirBuilder,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{EmbeddedError, layout::remove_dir};

/// Waits for the end of its pipe, then removes `$1`: again and again for a minute, since an initdb or a
/// server that lost its owner in the same moment may still be writing there.
const JANITOR: &str = r#"
trap '' INT TERM HUP
while read -r _line; do :; done
tries=0
while [ -e "$1" ] && [ "$tries" -lt 300 ]; do
    rm -rf -- "$1" 2>/dev/null
    [ ! -e "$1" ] || sleep 0.2
    tries=$((tries + 1))
done
"#;

/// A directory and the process that removes it when this one cannot.
pub(crate) struct Scratch {
    dir: PathBuf,
    janitor: Child,
    pipe: Option<ChildStdin>,
}

impl Scratch {
    /// Makes a directory that everybody may pass through and only its owner list.
    pub(crate) fn new(parent: &Path) -> Result<Self, EmbeddedError> {
        let parent = parent
            .canonicalize()
            .map_err(EmbeddedError::file("use", parent))?;
        let dir = parent.join(format!("tenantry-postgres-{:016x}", rand::random::<u64>()));
        let shell = Path::new("/bin/sh");
        // Before the directory is there, so that there is no moment in which a kill would leave it behind.
        let mut janitor = Command::new(shell)
            .args(["-c", JANITOR, "tenantry-janitor"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| EmbeddedError::Program {
                program: shell.to_owned(),
                reason: error.to_string(),
            })?;
        let pipe = janitor.stdin.take();
        let scratch = Self { dir, janitor, pipe };
        DirBuilder::new()
            .mode(0o711)
            .create(&scratch.dir)
            .map_err(EmbeddedError::file("create", &scratch.dir))?;
        Ok(scratch)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the directory; its processes must be gone.
    pub(crate) fn remove(mut self) -> Result<(), EmbeddedError> {
        self.clean_up()
    }

    fn clean_up(&mut self) -> Result<(), EmbeddedError> {
        let Some(pipe) = self.pipe.take() else {
            return Ok(());
        };
        let removed = remove_dir(&self.dir);
        drop(pipe);
        // It has nothing left to do; that it was killed is no matter either.
        let _ = self.janitor.wait();
        removed
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            tracing::warn!(%error, "a throw-away directory stays behind");
        }
    }
}
