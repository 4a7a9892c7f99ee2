//! As whom the server runs: PostgreSQL refuses root, so root hands it to an account without privileges.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::EmbeddedError;

/// What a server may inherit: where programs and libraries are, and by which test run it was started.
const INHERITED: [&str; 4] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "TENANTRY_TEST_RUN",
];

/// The account of the server and of initdb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// Where to change to before a program starts; `None` when it is the caller's own account.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// The caller's own, or for root: whoever owns the data already, else `postgres`, else `nobody`.
    pub(crate) fn choose(data: &Path) -> Result<Self, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self {
                name: "you".to_owned(),
                ids: None,
            });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Ok(meta) = data.metadata()
            && meta.uid() != 0
        {
            let name = entries(&passwd)
                .find(|entry| entry.1 == meta.uid())
                .map_or_else(|| format!("uid {}", meta.uid()), |entry| entry.0.to_owned());
            return Ok(Self {
                name,
                ids: Some((meta.uid(), meta.gid())),
            });
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| entries(&passwd).find(|entry| entry.0 == *name && entry.1 != 0))
            .map(|(name, uid, gid)| Self {
                name: name.to_owned(),
                ids: Some((uid, gid)),
            })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this account in `dir`, without the caller's environment: that may hold secrets,
    /// and settings of another PostgreSQL.
    pub(crate) fn command(&self, program: impl AsRef<Path>, dir: &Path) -> Command {
        let mut command = Command::new(program.as_ref());
        // The caller's own directory may be closed to the account.
        command.current_dir(dir).stdin(Stdio::null()).env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // Messages are looked through for known causes.
        command.env("LC_ALL", "C");
        if let Some((uid, gid)) = self.ids {
            // As root, this clears the supplementary groups, too.
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        match self.ids {
            None => Ok(()),
            Some((uid, gid)) => {
                chown(path, Some(uid), Some(gid)).map_err(EmbeddedError::file("change the owner of", path))
            }
        }
    }

    /// Checks that this account can enter `dir`, by trying, so that access lists count as well as modes.
    pub(crate) fn check_reach(&self, dir: &Path) -> Result<(), EmbeddedError> {
        if self.ids.is_none() {
            return Ok(());
        }
        let mut ancestors: Vec<&Path> = dir.ancestors().collect();
        ancestors.reverse();
        let shell = Path::new("/bin/sh");
        let output = self
            .command(shell, Path::new("/"))
            .args([
                "-c",
                "for d do cd \"$d\" 2>/dev/null || { printf %s \"$d\"; exit 1; }; done",
                "sh",
            ])
            .args(ancestors)
            .output()
            .map_err(|error| EmbeddedError::Program {
                program: shell.to_owned(),
                reason: error.to_string(),
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(EmbeddedError::Unreachable {
            account: self.name.clone(),
            dir: PathBuf::from(String::from_utf8_lossy(&output.stdout).into_owned()),
        })
    }
}

/// Name, user id and group id of each well-formed line.
fn entries(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_that_make_no_sense_are_passed_over() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\n# comment\n\npostgres:x:101:104:,,,:/var:/bin/sh\nodd:x:a:b\n";
        let read: Vec<_> = entries(passwd).collect();
        assert_eq!(read, [("root", 0, 0), ("postgres", 101, 104)]);
    }
}
