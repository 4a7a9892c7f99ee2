//! What a program outside of the workspace takes upon itself with the one dependency.

use std::{collections::BTreeSet, path::Path, process::Command};

/// Crates below the facade, on this platform and without what is for building only. It was 211 for the router
/// alone; who adds one raises this on purpose.
const CRATES_MAX: usize = 135;

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_brings_in_few_crates_and_none_for_making_tenants_or_logging_people_in() {
    let tree = cargo(&["tree", "-e", "normal", "--prefix", "none", "-f", "{p}"]);
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for absent in ["refinery", "jsonwebtoken", "argon2", "actix-web", "provisioner"] {
        assert!(!names.contains(absent), "{absent} is there");
    }
    assert!(names.len() <= CRATES_MAX, "{} crates: {names:?}", names.len());
}

/// `cargo publish` refuses a package without these.
#[test]
fn its_package_says_what_a_registry_of_packages_asks_for() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    for name in [
        "tenantry", "resolver", "arbiter", "registry", "identity", "model", "pg",
    ] {
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        for field in ["description", "license"] {
            assert!(package[field].is_string(), "{name}: {field}");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let inside = dependency["path"].is_string() && dependency["kind"].is_null();
            assert!(
                !inside || dependency["req"] != "*",
                "{name} names no version of {}",
                dependency["name"]
            );
        }
    }
}
