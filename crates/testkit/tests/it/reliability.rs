//! docs/reliability.md names the test that holds each fault, and docs/decisions the tests that measure each
//! decision. A test that was renamed or removed would leave a claim that nothing holds, so every name on
//! these pages must be a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of every Rust file below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a crate's folder can be listed") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file is text"));
        }
    }
    text
}

/// The tests that the page names: `crate::module::test` in backquotes, with a function's name of three words
/// or more.
fn named(page: &str) -> Vec<(&str, &str)> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| {
            let (krate, rest) = quoted.split_once("::")?;
            let function = rest.rsplit("::").next()?;
            let is_name = |text: &str| {
                text.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            };
            (is_name(krate) && is_name(function) && function.matches('_').count() > 1)
                .then_some((krate, function))
        })
        .collect()
}

#[test]
fn every_test_that_the_page_on_reliability_names_exists() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("the page is there");
    let named = named(&page);
    assert!(named.len() > 50, "only {} tests are named", named.len());
    let missing = missing(named);
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_test_that_a_decision_names_exists() {
    let mut pages = 0;
    for entry in fs::read_dir(root().join("docs/decisions")).expect("the folder is there") {
        let path = entry.expect("its entries can be read").path();
        let page = fs::read_to_string(&path).expect("a page is text");
        let named = named(&page);
        pages += usize::from(!named.is_empty());
        let missing = missing(named);
        assert!(
            missing.is_empty(),
            "{}: no such tests: {missing:#?}",
            path.display()
        );
        let sections = page.matches("\n### ").count();
        for part in ["Context", "Choice", "Consequence", "Measured by"] {
            let found = page.matches(&format!("\n- **{part}:**")).count();
            assert_eq!(found, sections, "{}: a decision lacks its {part}", path.display());
        }
    }
    assert!(pages > 5, "only {pages} pages name tests");
}

/// Those of these tests that do not exist.
fn missing(named: Vec<(&str, &str)>) -> Vec<String> {
    named
        .into_iter()
        .filter(|(krate, function)| {
            let folder = root().join("crates").join(krate);
            !folder.is_dir() || !sources(&folder).contains(&format!("fn {function}("))
        })
        .map(|(krate, function)| format!("{krate}: {function}"))
        .collect()
}

#[test]
fn names_are_found_in_backquotes_only() {
    let page = "x `server::it::login::a_long_name` a_b_c `cargo` `model::Slug` `lab::one_two_three`";
    assert_eq!(named(page), [("server", "a_long_name"), ("lab", "one_two_three")]);
}
