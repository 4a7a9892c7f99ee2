//! Every relative link in the documents leads to a file of the repository, and its fragment to a heading
//! there. Links to the network are not followed.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace has a root")
}

/// Every `*.md` below a folder, without build results and hidden folders.
fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the entry can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            pages(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// The lines of a page that are prose: none of a fenced block.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    page.lines().enumerate().filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((number + 1, line))
    })
}

/// A line without what stands in backquotes: code is no link.
fn without_code(line: &str) -> String {
    let mut parts: Vec<&str> = line.split('`').collect();
    // The text behind an unpaired backquote is prose.
    let unpaired = parts.len().is_multiple_of(2).then(|| parts.pop()).flatten();
    let mut kept: String = parts.into_iter().step_by(2).collect::<Vec<_>>().join("code");
    kept.push_str(unpaired.unwrap_or_default());
    kept
}

/// The targets of the links in a page, each with the number of its line.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(page) {
        let line = without_code(line);
        found.extend(
            line.split("](")
                .skip(1)
                .filter_map(|rest| rest.split_once(')'))
                .map(|(target, _)| (number, target.trim_matches(['<', '>']).to_owned())),
        );
        // A definition: `[name]: target`.
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            found.push((number, target.trim().to_owned()));
        }
    }
    found
}

/// The fragment that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// The fragments of a page: one for each heading, with a number where a heading repeats.
fn anchors(page: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    prose(page)
        .filter_map(|(_, line)| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len() && text.starts_with(' ')).then(|| anchor(&heading_text(text)))
        })
        .map(|anchor| {
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            match *count {
                1 => anchor,
                more => format!("{anchor}-{}", more - 1),
            }
        })
        .collect()
}

/// A heading's text: a link in it counts by its words.
fn heading_text(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    text.push_str(rest);
    text
}

/// Paths of the repository in backquotes, as a recipe names them; none with a place to fill in.
fn paths(page: &str) -> Vec<(usize, &str)> {
    const FOLDERS: [&str; 7] = [
        "crates/",
        "data/",
        "deploy/",
        "docs/",
        "migrations-master/",
        "migrations-tenant/",
        "scripts/",
    ];
    prose(page)
        .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |code| (number, code)))
        .filter(|(_, code)| FOLDERS.iter().any(|folder| code.starts_with(folder)))
        // A command's arguments are not part of its path.
        .map(|(number, code)| (number, code.split(' ').next().unwrap_or(code)))
        .filter(|(_, path)| !path.contains(['<', '*', '…', '{']))
        .collect()
}

/// What is wrong with the links of a page, by line.
fn broken(file: &Path) -> Vec<String> {
    let page = fs::read_to_string(file).expect("a page is text");
    let mut broken = Vec::new();
    for (number, target) in links(&page) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
        let leads_to = if path.is_empty() {
            file.to_owned()
        } else {
            file.parent().expect("a page lies in a folder").join(path)
        };
        let at = format!("{}:{number}: {target}", file.display());
        if !leads_to.exists() {
            broken.push(format!("{at}: no such file"));
        } else if !fragment.is_empty() {
            let known = fs::read_to_string(&leads_to)
                .map(|page| anchors(&page))
                .unwrap_or_default();
            if !known.iter().any(|anchor| anchor == fragment) {
                broken.push(format!("{at}: no such heading"));
            }
        }
    }
    broken
}

#[test]
fn every_relative_link_of_the_documents_leads_to_a_file_and_a_heading() {
    let mut files = Vec::new();
    pages(&root(), &mut files);
    let links: usize = files
        .iter()
        .map(|file| links(&fs::read_to_string(file).expect("a page is text")).len())
        .sum();
    assert!(links > 50, "only {links} links in {} pages", files.len());
    let broken: Vec<String> = files.iter().flat_map(|file| broken(file)).collect();
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_path_of_the_repository_that_the_documents_name_exists() {
    let mut files = Vec::new();
    pages(&root(), &mut files);
    let mut named = 0;
    let mut missing = Vec::new();
    for file in &files {
        let page = fs::read_to_string(file).expect("a page is text");
        for (number, path) in paths(&page) {
            named += 1;
            if !root().join(path).exists() {
                missing.push(format!("{}:{number}: {path}", file.display()));
            }
        }
    }
    assert!(named > 50, "only {named} paths are named");
    assert!(missing.is_empty(), "no such paths:\n{}", missing.join("\n"));
    assert_eq!(
        paths("`scripts/x --quick` and crates/y `crates/<name>/z.rs` `docs/z.md`"),
        [(1, "scripts/x"), (1, "docs/z.md")]
    );
}

#[test]
fn a_link_without_file_or_heading_is_found_and_code_is_no_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("a.md");
    fs::write(
        folder.path().join("b.md"),
        "# The `b` of [b](a.md)\n\n## Twice\n\n## Twice\n",
    )
    .expect("written");
    fs::write(
        &page,
        "# A\n[1](b.md) [2](b.md#the-b-of-b) [3](#a) [4](https://example.org/#x) [5](b.md#twice-1)\n\
         [6](c.md) and [7](b.md#thrice)\n`[8](no.md)`\n```\n# Not a heading\n[9](no.md)\n```\n\
         [10](#not-a-heading)\n\n[name]: d.md\n",
    )
    .expect("written");
    let found: Vec<String> = broken(&page)
        .into_iter()
        .map(|line| {
            line.rsplit_once("a.md:")
                .map_or(line.clone(), |(_, rest)| rest.to_owned())
        })
        .collect();
    assert_eq!(
        found,
        [
            "3: c.md: no such file",
            "3: b.md#thrice: no such heading",
            "9: #not-a-heading: no such heading",
            "11: d.md: no such file",
        ]
    );
}
