//! ARCHITECTURE.md says which crates there are and what each never imports. These tests keep both true, so
//! that the page can be trusted and a shortcut between rooms does not slip in.

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

/// What a crate depends on directly, on any platform and also to build it; development dependencies aside.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
    dependencies_in(&manifest).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dependencies_in(manifest: &str) -> Result<BTreeSet<String>, toml::de::Error> {
    const KINDS: [&str; 2] = ["dependencies", "build-dependencies"];
    let manifest: toml::Table = manifest.parse()?;
    let tables = |value: Option<&toml::Value>| -> Vec<toml::Table> {
        let table = value.and_then(toml::Value::as_table);
        table
            .into_iter()
            .flat_map(|table| table.values().filter_map(toml::Value::as_table).cloned())
            .collect()
    };
    let mut places = vec![manifest.clone()];
    places.extend(tables(manifest.get("target")));
    let mut found = BTreeSet::new();
    for table in places
        .iter()
        .flat_map(|place| KINDS.iter().filter_map(|kind| place.get(*kind)?.as_table()))
    {
        for (name, how) in table {
            // Under another name it is the same library.
            let package = how.get("package").and_then(toml::Value::as_str);
            found.insert(package.unwrap_or(name).to_owned());
        }
    }
    Ok(found)
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

/// What a crate must not say to a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Sql,
    Ddl,
}

impl Language {
    /// Words with which a statement begins.
    fn openings(self) -> &'static [&'static str] {
        match self {
            Self::Ddl => &["CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "TRUNCATE"],
            Self::Sql => &[
                "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "ALTER", "DROP", "GRANT", "REVOKE",
                "LISTEN", "SET",
            ],
        }
    }

    /// Words that make a statement when both stand in one line, the second somewhere behind the first.
    fn pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Ddl => &[
                ("CREATE", "DATABASE"),
                ("CREATE", "ROLE"),
                ("CREATE", "TABLE"),
                ("ALTER", "DATABASE"),
                ("ALTER", "ROLE"),
                ("ALTER", "TABLE"),
                ("DROP", "DATABASE"),
                ("DROP", "ROLE"),
                ("DROP", "TABLE"),
                ("GRANT", "TO"),
                ("REVOKE", "FROM"),
            ],
            Self::Sql => &[
                ("SELECT", "FROM"),
                ("INSERT", "INTO"),
                ("UPDATE", "SET"),
                ("DELETE", "FROM"),
            ],
        }
    }

    /// Whether a line of source, comments aside, opens a string literal (or goes on with one) with a
    /// statement, or has one anywhere in it. SQL is in capitals throughout the project, which tells it from
    /// prose.
    fn is_in(self, line: &str) -> bool {
        let line = line.trim();
        if line.starts_with("//") {
            return false;
        }
        let code = line.split(" // ").next().unwrap_or(line);
        let opens = self
            .openings()
            .iter()
            .any(|word| code.contains(&format!("\"{word} ")) || code.starts_with(&format!("{word} ")));
        let words: Vec<&str> = code
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        let has = |first: &str, second: &str| {
            let mut rest = words.iter().skip_while(|word| **word != first).skip(1);
            rest.any(|word| *word == second)
        };
        opens || self.pairs().iter().any(|(first, second)| has(first, second))
    }
}

/// Where a crate's sources hold a statement, or include a file of them.
fn places_with(name: &str, language: Language) -> Vec<String> {
    let mut files = Vec::new();
    rust_files(&root().join("crates").join(name).join("src"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let text = read(&file);
        for (number, line) in text.lines().enumerate() {
            if language.is_in(line) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
        for included in sql_included(&text) {
            found.push(format!("{}: includes {included}", file.display()));
        }
    }
    found
}

/// Files of SQL that a source embeds, however its lines are broken.
fn sql_included(source: &str) -> Vec<&str> {
    source
        .split("include_str!(")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(path, _)| path.trim().trim_end_matches(',').trim_matches('"'))
        .filter(|path| path.ends_with(".sql"))
        .collect()
}

#[test]
fn the_code_map_lists_exactly_the_crates_there_are() {
    let mapped: BTreeSet<String> = code_map().into_keys().collect();
    assert_eq!(mapped, crates_on_disk(), "left: ARCHITECTURE.md, right: crates/");
}

#[test]
fn no_crate_imports_what_the_code_map_says_it_never_does() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for (name, never) in code_map() {
        let has = dependencies(&name);
        for word in never {
            checked += 1;
            match word.as_str() {
                "SQL" => broken.extend(places_with(&name, Language::Sql)),
                "DDL" => broken.extend(places_with(&name, Language::Ddl)),
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
fn a_dependency_is_seen_wherever_it_is_declared_and_whatever_it_is_called() {
    let manifest = r#"
        [dependencies]
        plain = "1"
        [build-dependencies]
        builder.workspace = true
        [target.'cfg(unix)'.dependencies]
        other = { package = "actix-web", version = "4" }
        [target.x86_64-unknown-linux-gnu.build-dependencies]
        deep = "1"
        [dev-dependencies]
        tested = "1"
    "#;
    let seen: Vec<String> = dependencies_in(manifest).unwrap().into_iter().collect();
    assert_eq!(seen, ["actix-web", "builder", "deep", "plain"]);
}

#[test]
fn sql_is_told_from_prose_wherever_it_stands_in_a_line() {
    for line in [
        r#"client.query("SELECT 1", &[])"#,
        "    UPDATE tenants",
        r#"let text = format!("{hint} SELECT id FROM {table}");"#,
        r#"(concat!("(INSERT INTO t VALUES (1))"))"#,
        r#"run(&format!("/* a */ UPDATE {table} SET a = 1")) // why"#,
        r#"x("; DELETE FROM t")"#,
    ] {
        assert!(Language::Sql.is_in(line), "{line}");
    }
    for line in [
        "// SELECT id FROM tenants",
        "let a = 1; // then UPDATE t SET a = 1",
        r#""select one from the list""#,
        "const DELETE_FROM: u8 = 1;",
        r#""FROM then SELECT""#,
        "Method::DELETE => from(INSERT),",
    ] {
        assert!(!Language::Sql.is_in(line), "{line}");
    }
    assert!(Language::Ddl.is_in(r#"sql.push_str("; DROP DATABASE x")"#));
    assert!(!Language::Ddl.is_in(r#"sql.push_str("; SELECT a FROM x")"#));
    let source = "include_str!(\"a.sh\"); include_str!(\n    \"../b.sql\",\n)";
    assert_eq!(sql_included(source), ["../b.sql"]);
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
