//! ARCHITECTURE.md says which crates there are and what each never imports. These tests keep both true, so that the
//! page can be trusted and a shortcut between rooms does not slip in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace has a root")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code map's rows: crate → the words in backquotes in its "never imports" column.
fn code_map() -> BTreeMap<String, BTreeSet<String>> {
    let page = read(&root().join("ARCHITECTURE.md"));
    let map = page
        .split_once("<!-- code map: begin -->")
        .and_then(|(_, rest)| rest.split_once("<!-- code map: end -->"))
        .expect("ARCHITECTURE.md marks its code map")
        .0;
    map.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            let [name, _holds, never] = cells[..] else {
                return None;
            };
            let name = name.strip_prefix('`')?.split('`').next()?.to_owned();
            let never = never.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Some((name, never))
        })
        .collect()
}

fn crates_on_disk() -> BTreeSet<String> {
    fs::read_dir(root().join("crates"))
        .expect("crates/ is a folder")
        .map(|entry| entry.expect("crates/ can be listed").path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| {
            path.file_name()
                .expect("it has a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// What a crate depends on directly, development dependencies aside.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
    let manifest: toml::Table = manifest.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table
        .into_iter()
        .flat_map(|table| table.keys().cloned())
        .collect()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Lines of a crate's sources (comments aside) that open a string literal, or go on with one, with a statement. SQL is in
/// capitals throughout the project, which tells it from prose.
fn lines_with_sql(name: &str, statements: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    rust_files(&root().join("crates").join(name).join("src"), &mut files);
    let mut found = Vec::new();
    for file in files {
        for (number, line) in read(&file).lines().enumerate() {
            let line = line.trim();
            let opens_statement = statements.iter().any(|statement| {
                line.contains(&format!("\"{statement} ")) || line.starts_with(&format!("{statement} "))
            });
            if opens_statement && !line.starts_with("//") {
                found.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn the_code_map_lists_exactly_the_crates_there_are() {
    let mapped: BTreeSet<String> = code_map().into_keys().collect();
    assert_eq!(mapped, crates_on_disk(), "left: ARCHITECTURE.md, right: crates/");
}

#[test]
fn no_crate_imports_what_the_code_map_says_it_never_does() {
    const DDL: &[&str] = &["CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "TRUNCATE"];
    const SQL: &[&str] = &[
        "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "ALTER", "DROP", "GRANT", "REVOKE",
        "LISTEN", "SET",
    ];
    let mut broken = Vec::new();
    let mut checked = 0;
    for (name, never) in code_map() {
        let has = dependencies(&name);
        for word in never {
            checked += 1;
            match word.as_str() {
                "SQL" => broken.extend(lines_with_sql(&name, SQL)),
                "DDL" => broken.extend(lines_with_sql(&name, DDL)),
                dependency => {
                    // "actix" stands for every crate of that family.
                    let is = |d: &String| d == dependency || d.starts_with(&format!("{dependency}-"));
                    let exact = |d: &String| d == dependency;
                    let hit = if dependency == "actix" {
                        has.iter().any(is)
                    } else {
                        has.iter().any(exact)
                    };
                    if hit {
                        broken.push(format!("{name} depends on {dependency}"));
                    }
                }
            }
        }
    }
    assert!(
        checked > 20,
        "the code map names only {checked} rules; was its table's form changed?"
    );
    assert!(
        broken.is_empty(),
        "ARCHITECTURE.md says never:\n{}",
        broken.join("\n")
    );
}

#[test]
fn every_settled_library_is_used_and_its_job_is_named() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let used: BTreeSet<String> = crates_on_disk()
        .iter()
        .flat_map(|name| dependencies(name))
        .collect();
    for library in [
        "tokio",
        "tokio-postgres",
        "deadpool-postgres",
        "refinery",
        "moka",
        "lru",
        "actix-web",
        "serde",
        "jsonwebtoken",
        "clap",
        "tracing",
    ] {
        assert!(used.contains(library), "{library} is in no crate's dependencies");
        assert!(
            page.contains(&format!("| {library} |")),
            "ARCHITECTURE.md does not say what {library} does"
        );
    }
}
