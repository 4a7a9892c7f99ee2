use std::{collections::BTreeSet, path::Path};

use settings::{DefaultValue, KEYS, OTHER_VARIABLES, markdown_table};

use crate::load;

#[test]
fn names_are_unique_and_variables_follow_the_keys() {
    let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let variables: BTreeSet<_> = KEYS
        .iter()
        .map(|key| key.env)
        .chain(OTHER_VARIABLES.iter().copied())
        .collect();
    assert_eq!(names.len(), KEYS.len());
    assert_eq!(variables.len(), KEYS.len() + OTHER_VARIABLES.len());
    for key in KEYS.iter().filter(|key| key.env.starts_with("TENANTRY_")) {
        let long = format!("TENANTRY_{}", key.name.replace('.', "_").to_uppercase());
        let short = format!("TENANTRY_{}", key.name.split_once('.').unwrap().1.to_uppercase());
        let is_path = key.name.starts_with("paths.");
        assert_eq!(key.env, if is_path { short } else { long });
    }
}

#[test]
fn every_default_is_one_of_the_accepted_values() {
    for key in KEYS {
        let value = match key.default {
            DefaultValue::Number(number) => number.to_string(),
            DefaultValue::Text(text) => text.to_owned(),
            DefaultValue::Derived(_) | DefaultValue::Unset(_) => continue,
        };
        assert!(load("", &[(key.env, &value)]).is_ok(), "{} = {value}", key.name);
    }
}

#[test]
fn the_example_file_is_accepted_and_shows_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/tenantry.toml");
    let example = std::fs::read_to_string(file).unwrap();
    let explained = load(&example, &[]).unwrap().explain();
    let defaults = load("", &[]).unwrap().explain();
    for (shown, default) in explained.iter().zip(&defaults) {
        assert_eq!(shown.value, default.value, "{}", shown.key);
    }
    // Uncommented as a whole it is still accepted, so no line in it is out of date.
    let all: String = example
        .lines()
        .map(|line| {
            line.strip_prefix("#")
                .filter(|rest| rest.contains(" = ") && !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let uncommented = load(&all, &[]);
    assert!(uncommented.is_ok(), "{}", uncommented.unwrap_err());
}

#[test]
fn the_table_lists_every_key_once() {
    let table = markdown_table();
    assert_eq!(table.lines().count(), KEYS.len() + 2);
    for key in KEYS {
        assert!(
            table.contains(&format!("| `{}` | `{}` |", key.name, key.env)),
            "{}",
            key.name
        );
    }
    assert!(
        table
            .lines()
            .all(|line| line.matches(" | ").count() == 4 || line.starts_with("|---")),
        "{table}"
    );
}
