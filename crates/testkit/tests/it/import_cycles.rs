//! Counts, for each crate, the imports between its files that are part of a cycle, and keeps the count from
//! rising.
//!
//! A file that takes part in no cycle can be read, tested and moved without the files that import it. Cargo
//! refuses cycles between crates; within a crate only this test does. It reads the source as text: a path
//! counts as an import wherever it stands, and a name that a module re-exports counts as an import of the
//! file that defines it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The imports that are part of a cycle, by crate; a crate that is missing here has none. Lower a number when
/// you remove cycles. Do not raise one: move what both files need to a third.
const BOUNDS: &[(&str, usize)] = &[
    ("archive", 5),
    ("bench", 2),
    ("embedded", 4),
    ("identity", 2),
    ("lab", 9),
    ("outbox", 4),
    ("bootstrap", 3),
    ("provisioner", 6),
    ("registry", 4),
    ("resolver", 2),
    ("server", 13),
    ("tenantctl", 4),
];

#[test]
fn no_crate_has_more_import_cycles_than_before() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut worse = String::new();
    for entry in fs::read_dir(crates).expect("crates/ can be listed") {
        let folder = entry.expect("crates/ can be listed").path();
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let name = folder.file_name().expect("it has a name").to_string_lossy();
        let bound = BOUNDS.iter().find(|(known, _)| *known == name);
        let bound = bound.map_or(0, |(_, bound)| *bound);
        let cyclic = cyclic_imports(&folder.join("src"));
        let mut report = format!(
            "{name}: {} imports in cycles, at most {bound} allowed\n",
            cyclic.len()
        );
        for (from, to) in &cyclic {
            report.push_str(&format!("    {from} imports {to}\n"));
        }
        print!("{report}");
        if cyclic.len() > bound {
            worse.push_str(&report);
        }
    }
    assert!(worse.is_empty(), "import cycles were added:\n{worse}");
}

#[test]
fn a_cycle_is_seen_however_the_paths_are_written_and_not_in_comments_texts_or_tests() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, text) in [
        (
            "lib.rs",
            "mod a;\nmod b;\nmod c;\npub mod d;\npub use crate::{a::A, c::{self, C as See}};\n",
        ),
        (
            "a.rs",
            "fn f() { let quote = '\"'; crate::See::new(); } // crate::d::D\n",
        ),
        (
            "b.rs",
            "use super::d::{D, E};\n/* crate::a::A */ const TEXT: &str = r#\"crate::a::A\"#;\n",
        ),
        ("c.rs", "use crate::A;\n"),
        (
            "d/mod.rs",
            "mod inner;\npub use inner::E;\npub struct D;\n#[cfg(test)]\nmod tests { use crate::b; }\n",
        ),
        ("d/inner.rs", "use super::D;\n"),
    ] {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("it is in a folder")).expect("folders can be made");
        fs::write(file, text).expect("files can be written");
    }
    let cyclic = cyclic_imports(folder.path());
    let cyclic: Vec<(&str, &str)> = cyclic
        .iter()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    let expected = [
        ("a.rs", "c.rs"),
        ("c.rs", "a.rs"),
        ("d/inner.rs", "d/mod.rs"),
        ("d/mod.rs", "d/inner.rs"),
    ];
    assert_eq!(cyclic, expected);
}

/// The imports between files below `src` that are part of a cycle.
fn cyclic_imports(src: &Path) -> BTreeSet<(String, String)> {
    let mut roots = vec![src.join("lib.rs"), src.join("main.rs")];
    if let Ok(binaries) = fs::read_dir(src.join("bin")) {
        roots.extend(binaries.map(|entry| entry.expect("src/bin can be listed").path()));
    }
    let mut imports = BTreeSet::new();
    for root in roots.iter().filter(|root| root.is_file()) {
        imports.extend(Modules::read(root).imports());
    }
    let name = |path: &Path| {
        path.strip_prefix(src)
            .expect("it is below src")
            .display()
            .to_string()
    };
    let imports: BTreeSet<(String, String)> =
        imports.iter().map(|(from, to)| (name(from), name(to))).collect();
    let reaches = reachable(&imports);
    imports
        .into_iter()
        .filter(|(from, to)| reaches.get(to).is_some_and(|all| all.contains(from)))
        .collect()
}

/// Which files each file imports, directly or through others.
fn reachable(imports: &BTreeSet<(String, String)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut reaches: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in imports {
        reaches.entry(from.clone()).or_default().insert(to.clone());
    }
    loop {
        let before: usize = reaches.values().map(BTreeSet::len).sum();
        for (from, to) in imports {
            let further = reaches.get(to).cloned().unwrap_or_default();
            reaches.entry(from.clone()).or_default().extend(further);
        }
        if reaches.values().map(BTreeSet::len).sum::<usize>() == before {
            return reaches;
        }
    }
}

/// A path of names from the crate's root.
type ModulePath = Vec<String>;

/// The modules of one library or binary that have files of their own.
#[derive(Default)]
struct Modules(BTreeMap<ModulePath, Module>);

struct Module {
    file: PathBuf,
    /// Every path in the file, from the crate's root, and the name under which a `use` brings it in.
    paths: Vec<(ModulePath, Option<String>)>,
}

impl Modules {
    fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        let folder = root.parent().expect("a file is in a folder");
        modules.read_module(root, folder, Vec::new());
        modules
    }

    /// `folder`: where the files of its child modules are.
    fn read_module(&mut self, file: &Path, folder: &Path, path: ModulePath) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let code = without_tests(&code_of(&text)).to_owned();
        let children = declared_modules(&code);
        let module = Module {
            file: file.to_owned(),
            paths: paths_in(&code, &path, &children),
        };
        self.0.insert(path.clone(), module);
        for child in children {
            let inside = folder.join(&child);
            let beside = folder.join(format!("{child}.rs"));
            let child_file = if beside.exists() {
                beside
            } else {
                inside.join("mod.rs")
            };
            if child_file.exists() {
                let child_path = path.iter().cloned().chain([child]).collect();
                self.read_module(&child_file, &inside, child_path);
            }
        }
    }

    fn imports(&self) -> BTreeSet<(PathBuf, PathBuf)> {
        let mut imports = BTreeSet::new();
        for module in self.0.values() {
            for (path, _) in &module.paths {
                let to = self.defining_file(path, 8);
                if *to != module.file {
                    imports.insert((module.file.clone(), to.clone()));
                }
            }
        }
        imports
    }

    /// The file that defines what `path` leads to, following at most so many re-exports.
    fn defining_file(&self, path: &[String], hops: usize) -> &PathBuf {
        let mut length = path.len();
        let module = loop {
            match self.0.get(&path[..length]) {
                Some(module) => break module,
                None => length -= 1,
            }
        };
        let re_exported = path.get(length).and_then(|name| {
            let mut paths = module.paths.iter();
            paths.find(|(_, alias)| alias.as_ref() == Some(name))
        });
        match re_exported {
            Some((to, _)) if hops > 0 && to != path => {
                let whole: ModulePath = to.iter().chain(&path[length + 1..]).cloned().collect();
                self.defining_file(&whole, hops - 1)
            }
            _ => &module.file,
        }
    }
}

/// The source with the content of its comments, strings and characters left out.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = string_length(rest) {
            length
        } else {
            code.push(first);
            // The name before a quote may look like the beginning of a raw string; take names whole.
            let name = rest
                .chars()
                .take_while(|c| is_name(*c))
                .map(char::len_utf8)
                .sum::<usize>();
            code.push_str(rest.get(first.len_utf8()..name).unwrap_or_default());
            name.max(first.len_utf8())
        };
        rest = &rest[skipped..];
    }
    code
}

/// How long the string or character is that `rest` begins with, if it does.
fn string_length(rest: &str) -> Option<usize> {
    let raw = rest.trim_start_matches('b');
    if let Some(hashes) = raw.strip_prefix('r').filter(|_| rest.len() - raw.len() < 2) {
        let count = hashes.len() - hashes.trim_start_matches('#').len();
        if hashes[count..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(count));
            let start = rest.len() - hashes.len() + count + 1;
            return Some(
                rest[start..]
                    .find(&end)
                    .map_or(rest.len(), |at| start + at + end.len()),
            );
        }
    }
    if rest.starts_with('"') {
        return Some(quoted_length(rest, '"'));
    }
    // A lifetime has no closing quote after its first character.
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) | (Some('\''), Some(_), Some('\'')) => Some(quoted_length(rest, '\'')),
        _ => None,
    }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Unit tests stand at the end of a file, and their `super` is the file itself.
fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let after = code[from + at..].trim_start_matches("#[cfg(test)]").trim_start();
        if after.starts_with("mod ") && after.find('{') < after.find(';').or(Some(usize::MAX)) {
            return &code[..from + at];
        }
        from += at + 1;
    }
    code
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The modules that the file declares and that have files of their own.
fn declared_modules(code: &str) -> BTreeSet<String> {
    code.lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "))
        .filter(|(before, name)| before.trim_start_matches("pub").len() < 16 && name.chars().all(is_name))
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The paths that begin with `crate`, `super`, `self` or a child module, from the crate's root.
fn paths_in(code: &str, module: &[String], children: &BTreeSet<String>) -> Vec<(ModulePath, Option<String>)> {
    let mut found = Vec::new();
    for (start, _) in code.char_indices().filter(|(_, c)| is_name(*c)) {
        let before = &code[..start];
        if before.ends_with(|c| is_name(c) || c == ':') {
            continue;
        }
        let name: String = code[start..].chars().take_while(|c| is_name(*c)).collect();
        let Some(mut rest) = code[start + name.len()..].strip_prefix("::") else {
            continue;
        };
        let mut base: ModulePath = match name.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            child if children.contains(child) => module.iter().cloned().chain([name]).collect(),
            _ => continue,
        };
        while let Some(further) = rest.strip_prefix("super::") {
            base.pop();
            rest = further;
        }
        let is_use = before.trim_end().ends_with("use");
        read_tree(rest, &base, is_use, &mut found);
    }
    found
}

/// Reads one path, or a tree of them in braces, and returns what follows it.
fn read_tree<'a>(
    code: &'a str,
    base: &[String],
    is_use: bool,
    found: &mut Vec<(ModulePath, Option<String>)>,
) -> &'a str {
    let mut rest = code.trim_start();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches([',', ' ', '\n']);
            if let Some(after) = inside.strip_prefix('}') {
                return after;
            }
            let after = read_tree(inside, base, is_use, found);
            // Not a tree of paths, or cut off.
            if after.len() == inside.len() {
                return after;
            }
            inside = after;
        }
    }
    let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
    rest = &rest[name.len()..];
    let mut path = base.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name.clone());
    }
    if let Some(further) = rest.strip_prefix("::") {
        return read_tree(further, &path, is_use, found);
    }
    let alias = rest.trim_start().strip_prefix("as ").map(|alias| {
        let alias = alias.trim_start();
        alias.chars().take_while(|c| is_name(*c)).collect::<String>()
    });
    if let Some(alias) = &alias {
        let at = rest.find(alias.as_str()).unwrap_or_default();
        rest = &rest[at + alias.len()..];
    }
    let local = alias.or_else(|| path.last().cloned());
    found.push((path, local.filter(|_| is_use)));
    rest.strip_prefix('*').unwrap_or(rest)
}
