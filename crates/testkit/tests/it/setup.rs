//! scripts/setup leaves nothing behind on the machine, also when an earlier run was killed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH is set");
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is installed"))
}

/// Runs the script where no package manager is to be found, so that it changes nothing on this machine.
fn setup(dir: &Path, policy: &Path) -> Output {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["grep", "rm", "id", "sed"] {
        let _ = symlink(program(name), bin.join(name));
    }
    let sudo = bin.join("sudo");
    fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/setup");
    Command::new(program("bash"))
        .arg(script)
        .env_clear()
        .env("PATH", bin)
        .env("HOME", dir)
        .env("TENANTRY_TEST_POLICY_RC_D", policy)
        .output()
        .unwrap()
}

#[test]
fn the_file_that_keeps_services_from_starting_is_removed_after_a_killed_run_and_only_if_it_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy-rc.d");
    let script = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/setup")).unwrap();
    let mark = script
        .lines()
        .find_map(|line| line.strip_prefix("readonly POLICY_MARK='")?.strip_suffix('\''))
        .expect("the script names its mark");

    fs::write(&policy, format!("#!/bin/sh\n{mark}\nexit 101\n")).unwrap();
    let ended = setup(dir.path(), &policy);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("no package manager that this script knows"),
        "{said}"
    );
    assert!(!policy.exists(), "{said}");

    fs::write(&policy, "#!/bin/sh\n# the administrator's\nexit 101\n").unwrap();
    setup(dir.path(), &policy);
    assert!(policy.exists());
}
