//! PostgreSQL programs that stop at a shown moment until they are told to go on, so that a `kill -9` lands
//! there and not wherever the machine's speed puts it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use embedded::PgBin;
use tempfile::TempDir;
use testkit::eventually;

use crate::helper::{LIMIT, temp_dir};

/// Where a start is halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// initdb runs and has made nothing yet.
    BeforeInitdb,
    /// initdb has made everything and not yet ended, so the data have not their name yet.
    AfterInitdb,
    /// The supervisor has started what should become the server.
    BeforeServer,
}

pub(crate) const MOMENTS: [Moment; 3] = [Moment::BeforeInitdb, Moment::AfterInitdb, Moment::BeforeServer];

/// A directory of programs that halt at one moment and otherwise do what the real ones do. They go on as well
/// when it is removed, so that nothing waits for ever when a test fails.
pub(crate) struct Halting {
    dir: TempDir,
}

impl Halting {
    pub(crate) fn at(moment: Moment) -> Self {
        let real = PgBin::find(None).unwrap();
        let dir = temp_dir();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // The programs may run as another account, which must be able to tell.
        let flags = dir.path().join("flags");
        fs::create_dir(&flags).unwrap();
        fs::set_permissions(&flags, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(real.program("pg_ctl"), bin.join("pg_ctl")).unwrap();
        let halt = format!(
            ": >'{0}/reached'; while [ -e '{0}/reached' ] && [ ! -e '{0}/go' ]; do sleep 0.02; done",
            flags.display()
        );
        let program = |name: &str, halted: bool| {
            let real = real.program(name).display().to_string();
            let body = match moment {
                Moment::AfterInitdb if halted => format!("'{real}' \"$@\"; code=$?\n{halt}\nexit $code"),
                _ if halted => format!("[ \"$1\" = --version ] || {{ {halt}; }}\nexec '{real}' \"$@\""),
                _ => format!("exec '{real}' \"$@\""),
            };
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("initdb", moment != Moment::BeforeServer);
        program("postgres", moment == Moment::BeforeServer);
        Self { dir }
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    pub(crate) async fn until_reached(&self) {
        let reached = self.flag("reached");
        eventually("the start to be halted", LIMIT, async || reached.exists()).await;
    }

    /// What was halted goes on, if nobody has ended it.
    pub(crate) fn go_on(&self) {
        fs::write(self.flag("go"), "").unwrap();
    }

    fn flag(&self, name: &str) -> PathBuf {
        self.dir.path().join("flags").join(name)
    }
}
