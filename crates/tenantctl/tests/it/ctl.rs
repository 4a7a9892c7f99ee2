//! The program with an environment of its own.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use testkit::Space;

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A person at a terminal with these variables and no others.
pub(crate) struct Ctl {
    program: PathBuf,
    env: Vec<(String, String)>,
}

impl Ctl {
    /// Nothing is configured; state is below `home`.
    pub(crate) fn bare(home: &Path) -> Self {
        let path = std::env::var("PATH").unwrap();
        let state = home.join("state").display().to_string();
        let env = [
            ("PATH", path),
            ("HOME", home.display().to_string()),
            ("USER", "ada".to_owned()),
            ("TENANTRY_STATE_DIR", state),
        ];
        Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_tenantctl")),
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        }
    }

    /// On a space's server; nothing is prepared yet.
    pub(crate) fn on(space: &Space) -> Self {
        let registry = &space.registry;
        Self::bare(space.dir())
            .with("MASTER_PGHOST", &registry.host)
            .with("MASTER_PGPORT", &registry.port.to_string())
            .with("MASTER_PGUSER", &registry.user)
            .with("MASTER_PGPASSWORD", registry.password.expose_secret())
            .with("MASTER_PGDATABASE", &registry.database)
            .with("TENANTRY_NAMES_NAMESPACE", space.namespace.as_str())
    }

    /// The same, prepared.
    pub(crate) fn prepared(space: &Space) -> Self {
        let ctl = Self::on(space);
        ctl.run(&["up", "--no-serve"]).expect(0);
        ctl
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn installed_at(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    /// With `--json`; the document must be there whatever the exit code.
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        let said = self.run(&[args, &["--json"]].concat()).expect(code);
        said.json()
    }

    /// With this on standard input.
    pub(crate) fn typed(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Said::of(&child.wait_with_output().unwrap())
    }

    pub(crate) fn provision(&self, slug: &str) -> Value {
        self.json(
            0,
            &[
                "provision",
                slug,
                "--name",
                &format!("Lab {slug}"),
                "--admin-email",
                "ada@example.org",
            ],
        )
    }
}
