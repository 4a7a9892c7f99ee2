//! As much of JSON Schema as the description uses, read by somebody else than the code that writes it.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

/// The document as it is served.
pub(super) struct Document(pub(super) Value);

impl Document {
    /// The schema behind references.
    pub(super) fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.resolved(self.0.pointer(&reference[1..]).unwrap()),
            None => schema,
        }
    }

    /// The schemas of which one or all hold, and the one that is meant when a value is given.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolved(schema);
        let mut parts = vec![schema];
        for word in ["oneOf", "allOf", "anyOf"] {
            for part in schema[word].as_array().into_iter().flatten() {
                parts.extend(self.parts(part));
            }
        }
        parts
    }

    /// The properties of an object.
    pub(super) fn properties<'a>(&'a self, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let parts = self.parts(schema).into_iter();
        parts
            .filter_map(|part| part["properties"].as_object())
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect()
    }

    /// Which of them must be there.
    pub(super) fn required<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let parts = self.parts(schema).into_iter();
        parts
            .filter_map(|part| part["required"].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// What the items of a list are.
    pub(super) fn items<'a>(&'a self, schema: &'a Value) -> Option<&'a Value> {
        self.parts(schema).into_iter().find_map(|part| part.get("items"))
    }

    /// Whether a value is one that the schema describes.
    pub(super) fn allows(&self, schema: &Value, value: &Value) -> bool {
        let schema = self.resolved(schema);
        let all = |word: &str, any: bool| match schema[word].as_array() {
            Some(parts) if any => parts.iter().any(|part| self.allows(part, value)),
            Some(parts) => parts.iter().all(|part| self.allows(part, value)),
            None => true,
        };
        all("oneOf", true)
            && all("anyOf", true)
            && all("allOf", false)
            && type_fits(&schema["type"], value)
            && schema["enum"]
                .as_array()
                .is_none_or(|words| words.contains(value))
            && match value {
                Value::String(text) => text_fits(schema, text),
                Value::Number(_) => number_fits(schema, value),
                Value::Array(items) => {
                    within(schema, "minItems", "maxItems", items.len())
                        && schema
                            .get("items")
                            .is_none_or(|each| items.iter().all(|item| self.allows(each, item)))
                }
                Value::Object(fields) => {
                    let names = fields.keys().all(|name| {
                        schema["additionalProperties"] != json!(false)
                            || schema["properties"].get(name).is_some()
                    });
                    let values = fields.iter().all(|(name, value)| {
                        schema["properties"]
                            .get(name)
                            .is_none_or(|property| self.allows(property, value))
                    });
                    let required = schema["required"].as_array().into_iter().flatten();
                    names
                        && values
                        && required
                            .filter_map(Value::as_str)
                            .all(|name| fields.contains_key(name))
                }
                Value::Null | Value::Bool(_) => true,
            }
    }

    /// Values of every kind, and on both sides of each bound of the schema.
    pub(super) fn candidates(&self, schema: &Value, base: &Value) -> Vec<Value> {
        let mut found = vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(""),
            json!(" "),
            json!("x"),
            json!("a\u{1}b"),
            json!(varied(5_000)),
            json!([]),
            json!({}),
            json!(["x"]),
            json!({ "x": 1 }),
        ];
        for part in self.parts(schema) {
            for word in part["enum"].as_array().into_iter().flatten() {
                found.extend([word.clone(), json!("no_such_word")]);
            }
            for bound in ["minLength", "maxLength"] {
                let Some(length) = part[bound].as_u64() else {
                    continue;
                };
                for length in [length.saturating_sub(1), length, length + 1] {
                    let length = usize::try_from(length).unwrap();
                    let text = varied(length);
                    // Other letters where these do not fit.
                    if part["pattern"]
                        .as_str()
                        .is_some_and(|pattern| !fits(pattern, &text))
                    {
                        found.extend([json!(text.to_uppercase()), json!("7".repeat(length))]);
                    }
                    found.push(json!(text));
                    // Of letters and not of bytes.
                    if !part["description"].as_str().unwrap_or_default().contains("bytes") {
                        found.push(json!("é".repeat(length)));
                    }
                    if length > 2 {
                        found.push(json!(format!("{}@x", varied(length - 2))));
                    }
                }
            }
            for bound in ["minimum", "maximum"] {
                let Some(number) = part[bound].as_i64() else {
                    continue;
                };
                found.extend([number - 1, number, number + 1].map(|number| json!(number)));
            }
            if part["type"] == "integer" || part["format"] == "int32" {
                found.extend([json!(2_147_483_648_i64), json!(u64::MAX), json!("1")]);
            }
            if part["format"] == "date" {
                let texts = [
                    "2024-02-29",
                    "2023-02-29",
                    "20240229",
                    "2024-02-29[u-ca=japanese]",
                    "-009999-01-01",
                ];
                found.extend(texts.map(|text| json!(text)));
            }
            if part["format"] == "date-time" {
                let texts = [
                    "2024-02-29T08:00:00Z",
                    "2024-02-29T08:00:00.123+01:00",
                    "2023-02-29T08:00:00Z",
                    "2024-02-29T08:00:00+25:00",
                    "2024-02-29T08:00:00",
                    "2024-02-29T08:00:00-05:00[America/New_York]",
                    "2024-02-29",
                ];
                found.extend(texts.map(|text| json!(text)));
            }
            if part["format"] == "uuid" {
                found.push(json!("01890000-0000-7000-8000-00000000000g"));
            }
            for bound in ["minItems", "maxItems"] {
                let Some(length) = part[bound].as_u64() else {
                    continue;
                };
                let item = base[0].clone();
                for length in [length.saturating_sub(1), length, length + 1] {
                    found.push(Value::Array(vec![item.clone(); usize::try_from(length).unwrap()]));
                }
            }
        }
        let mut seen = BTreeSet::new();
        found.retain(|value| seen.insert(value.to_string()));
        found
    }
}

/// Letters in no pattern that anybody types, always the same.
pub(super) fn varied(length: usize) -> String {
    let mut state: u32 = 7;
    let letters = std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + u8::try_from((state >> 24) % 26).unwrap())
    });
    letters.take(length).collect()
}

fn type_fits(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| type_fits(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("no such type: {other}"),
        },
        _ => true,
    }
}

fn within(schema: &Value, min: &str, max: &str, have: usize) -> bool {
    let have = u64::try_from(have).unwrap();
    schema[min].as_u64().is_none_or(|min| have >= min) && schema[max].as_u64().is_none_or(|max| have <= max)
}

fn fits(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap().is_match(text)
}

fn text_fits(schema: &Value, text: &str) -> bool {
    let matches = |pattern: &str| fits(pattern, text);
    let format = match schema["format"].as_str() {
        Some("uuid") => matches("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
        Some("date") => matches(r"^\d{4}-\d{2}-\d{2}$") && text.parse::<jiff::civil::Date>().is_ok(),
        Some("date-time") => {
            matches(
                r"^\d{4}-\d{2}-\d{2}[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$",
            ) && text[..10].parse::<jiff::civil::Date>().is_ok()
        }
        _ => true,
    };
    format
        && within(schema, "minLength", "maxLength", text.chars().count())
        && schema["pattern"].as_str().is_none_or(matches)
}

fn number_fits(schema: &Value, value: &Value) -> bool {
    let number = value.as_f64().unwrap();
    let limit = match schema["format"].as_str() {
        Some("int32") => 2_147_483_647.0,
        // Above it no number is exact.
        Some("int64") => 9_007_199_254_740_992.0,
        _ => f64::INFINITY,
    };
    number >= schema["minimum"].as_f64().unwrap_or(-limit)
        && number <= schema["maximum"].as_f64().unwrap_or(limit)
}
