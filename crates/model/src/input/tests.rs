use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Outer {
    family_name: Option<String>,
    #[serde(default)]
    items: Vec<Inner>,
    #[serde(default)]
    open: bool,
    small: Option<u8>,
    other: Option<serde_json::Value>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    id: i32,
    word: String,
}

fn outer(json: &str) -> Result<Outer, Refusal> {
    read(serde_json::from_str(json).unwrap())
}

#[test]
fn a_document_is_read_and_what_does_not_fit_is_named_in_plain_words() {
    let read =
        outer(r#"{"items": [{"id": 1, "word": "a"}], "familyName": null, "other": {"a": [1.5, "b"]}}"#);
    let expected = Outer {
        items: vec![Inner {
            id: 1,
            word: "a".to_owned(),
        }],
        other: Some(serde_json::json!({ "a": [1.5, "b"] })),
        ..Outer::default()
    };
    assert_eq!(read, Ok(expected));
    for (json, pointer, word) in [
        ("[]", "", "an object"),
        ("null", "", "null"),
        (r#"{"familyName": 1}"#, "familyName", "a text"),
        (r#"{"familyName": ["a"]}"#, "familyName", "a text"),
        (r#"{"familyName": "a\u0000"}"#, "familyName", "U+0000"),
        (r#"{"items": {}}"#, "items", "a list"),
        (r#"{"items": [[1, "a"]]}"#, "items[0]", "an object"),
        (
            r#"{"items": [{"id": 1, "word": "a"}, {"id": "1"}]}"#,
            "items[1].id",
            "-2147483648",
        ),
        (r#"{"items": [{"id": 2147483648}]}"#, "items[0].id", "2147483647"),
        (r#"{"items": [{"id": 1.5}]}"#, "items[0].id", "whole number"),
        (r#"{"items": [{"id": 1}]}"#, "items[0].word", "missing"),
        (r#"{"items": [{"id": 1, "id": 2}]}"#, "items[0].id", "twice"),
        (r#"{"small": 256}"#, "small", "between 0 and 255"),
        (r#"{"open": "true"}"#, "open", "true or false"),
        (r#"{"open": null}"#, "open", "null"),
        (r#"{"opne": true}"#, "opne", "familyName, items, open"),
        (r#"{"other": {"a": 1, "a": 2}}"#, "other.a", "twice"),
    ] {
        let refusal = outer(json).unwrap_err();
        assert_eq!(refusal.pointer(), pointer, "{json}");
        assert!(refusal.message.contains(word), "{json}: {}", refusal.message);
    }
}

#[test]
fn pairs_are_words_that_may_stand_for_numbers() {
    let from = |given: &[(&str, &str)]| {
        read::<Outer>(pairs(
            given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        ))
    };
    let expected = Outer {
        family_name: Some("7".to_owned()),
        open: true,
        small: Some(9),
        ..Outer::default()
    };
    let given = [("familyName", "7"), ("open", "true"), ("small", "9")];
    assert_eq!(from(&given), Ok(expected));
    for bad in ["", "-", "+1", " 1", "1.0", "0x1", "many", "256", "-1"] {
        assert_eq!(from(&[("small", bad)]).unwrap_err().pointer(), "small", "{bad:?}");
    }
    assert_eq!(from(&[("open", "1")]).unwrap_err().pointer(), "open");
    assert_eq!(
        from(&[("small", "1"), ("small", "2")]).unwrap_err().pointer(),
        "small"
    );
}
