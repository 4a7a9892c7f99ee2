//! Finding the PostgreSQL programs that are installed, in the places where the common packages put them: the
//! newest server, or those that dump and restore for a server of one major version.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::EmbeddedError;

/// The oldest major version that Tenantry is tested with.
const MAJOR_MIN: u32 = 15;

/// What a directory must hold to be taken for a server's.
const REQUIRED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// What a directory must hold to dump and restore; packages of clients hold no server.
const DUMPERS: [&str; 2] = ["pg_dump", "pg_restore"];

/// The program directory of one installed PostgreSQL version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBin {
    dir: PathBuf,
    version: (u32, u32),
}

impl PgBin {
    /// The directory that is named, or else the newest server on this machine.
    ///
    /// Looked at are `pg_config --bindir` and the usual places of Debian, Fedora, Arch, Alpine and Homebrew.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what is missing and how to get it.
    pub fn find(explicit: Option<&Path>) -> Result<Self, EmbeddedError> {
        Self::find_for(explicit, None)
    }

    /// The programs that dump and restore, of exactly this major version: from the directory that is named,
    /// or else from those installed on this machine. A server need not be among them.
    ///
    /// Exactly, because a newer `pg_restore` says things at the start of a session that an older server
    /// refuses, and an older `pg_dump` does not read a newer server at all.
    ///
    /// # Errors
    /// [`EmbeddedError`] says which versions are there and how to get the wanted one.
    pub fn find_major(explicit: Option<&Path>, major: u32) -> Result<Self, EmbeddedError> {
        let dirs = match explicit {
            Some(dir) => BTreeSet::from([dir.to_owned()]),
            None => candidates(),
        };
        let mut found: Vec<Self> = Vec::new();
        for dir in dirs {
            match Self::look_for(&dir, &DUMPERS) {
                Ok(bin) => found.push(bin),
                Err(error) if explicit.is_some() => return Err(error),
                // Elsewhere, one that is not whole or cannot be run stands in nobody's way.
                Err(_) => {}
            }
        }
        found.sort_by_key(|bin| bin.version);
        if let Some(best) = found.iter().rev().find(|bin| bin.major() == major) {
            return Ok(best.clone());
        }
        let available: BTreeSet<u32> = found.iter().map(Self::major).collect();
        Err(EmbeddedError::NoSuchMajor {
            major,
            available: available.into_iter().collect(),
        })
    }

    /// As [`PgBin::find`], but of the major version that made the data in a directory, where there are any.
    pub(crate) fn find_for(
        explicit: Option<&Path>,
        made_by: Option<(&Path, u32)>,
    ) -> Result<Self, EmbeddedError> {
        let fits = |bin: &Self| made_by.is_none_or(|(_, major)| bin.major() == major);
        let other_major = |available: String| {
            let (dir, made_by) = made_by.expect("without data every version fits");
            EmbeddedError::OtherMajor {
                dir: dir.to_owned(),
                made_by,
                available,
            }
        };
        if let Some(dir) = explicit {
            let bin = Self::look(dir)?;
            return if fits(&bin) {
                Ok(bin)
            } else {
                Err(other_major(bin.major().to_string()))
            };
        }
        let candidates = candidates();
        let mut found: Vec<Self> = Vec::new();
        let mut refused = None;
        for dir in &candidates {
            match Self::look(dir) {
                Ok(bin) => found.push(bin),
                // A directory without a server in it is the rule in this search, and nothing to report.
                Err(EmbeddedError::Incomplete { .. }) => {}
                Err(error) => refused = Some(error),
            }
        }
        found.sort_by_key(|bin| bin.version);
        if let Some(best) = found.iter().rev().find(|bin| fits(bin)) {
            return Ok(best.clone());
        }
        if !found.is_empty() {
            let majors: Vec<String> = found.iter().map(|bin| bin.major().to_string()).collect();
            return Err(other_major(majors.join(", ")));
        }
        Err(refused.unwrap_or_else(|| EmbeddedError::NotFound {
            looked: candidates
                .iter()
                .map(|dir| dir.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }))
    }

    /// The path of a program such as `pg_dump`. That it exists was checked for initdb, postgres and pg_ctl,
    /// or for pg_dump and pg_restore when found by [`PgBin::find_major`]; not for any other.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The major version, such as 17.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version.0
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn look(dir: &Path) -> Result<Self, EmbeddedError> {
        let bin = Self::look_for(dir, &REQUIRED)?;
        if bin.major() < MAJOR_MIN {
            return Err(EmbeddedError::TooOld {
                dir: dir.to_owned(),
                found: bin.major(),
                needed: MAJOR_MIN,
            });
        }
        Ok(bin)
    }

    /// A directory that holds all of these programs, and the version that the first of them says.
    fn look_for(dir: &Path, programs: &[&'static str]) -> Result<Self, EmbeddedError> {
        for name in programs {
            if !is_executable(&dir.join(name)) {
                return Err(EmbeddedError::Incomplete {
                    dir: dir.to_owned(),
                    missing: name,
                });
            }
        }
        let version = version_of(&dir.join(programs[0]))?;
        Ok(Self {
            dir: dir.to_owned(),
            version,
        })
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn version_of(program: &Path) -> Result<(u32, u32), EmbeddedError> {
    let failed = |reason: String| EmbeddedError::Program {
        program: program.to_owned(),
        reason,
    };
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| {
        failed(format!(
            "`--version` says {:?}, which names no version",
            text.trim()
        ))
    })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `17devel` and `18beta1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("(PostgreSQL)")?;
    let word = rest.split_whitespace().next()?;
    let mut numbers = word.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let major = numbers.next()??;
    Some((major, numbers.next().flatten().unwrap_or(0)))
}

/// Every directory that exists and might hold a server.
fn candidates() -> BTreeSet<PathBuf> {
    let mut dirs = BTreeSet::new();
    let told = Command::new("pg_config")
        .arg("--bindir")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    if let Ok(output) = told {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !dir.is_empty() {
            dirs.insert(PathBuf::from(dir));
        }
    }
    // Parent directory, and how the names of the versions in it begin.
    let families = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/usr/libexec", "postgresql"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/usr/local", "pgsql"),
    ];
    for (parent, prefix) in families {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        dirs.extend(
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .flat_map(|entry| [entry.path().join("bin"), entry.path()]),
        );
    }
    dirs.insert(PathBuf::from("/usr/bin"));
    dirs.retain(|dir| dir.is_dir());
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_distributions_print_them() {
        for (text, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some((15, 18)),
            ),
            ("postgres (PostgreSQL) 17.2\n", Some((17, 2))),
            ("pg_dump (PostgreSQL) 16.4\n", Some((16, 4))),
            ("postgres (PostgreSQL) 18beta1\n", Some((18, 0))),
            ("postgres (PostgreSQL) 19devel\n", Some((19, 0))),
            ("postgres (EnterpriseDB) 1\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text:?}");
        }
    }
}
