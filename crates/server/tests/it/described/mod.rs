//! The description promises what the server does: for every operation and every field and parameter of it,
//! values just inside and just outside each bound that the description states, and values of every other
//! kind.
//!
//! What the description excludes must be refused, with a refusal that names the field. What it allows must
//! not be refused for the field's form. Fields whose value can be wrong for what it means are listed with the
//! requests ([`bases`]): of those only the first is asked.

mod bases;
mod schema;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::{
    bases::{Base, Stage, Variant, variants},
    schema::Document,
};
use crate::support::{Call, Reply};

/// Words of our parsers' and libraries' own, which no client should read.
const INSIDES: [&str; 20] = [
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "usize", "f32", "f64", "jiff", "serde", "uuid::",
    "parsing", "struct", "enum", "variant", "Option", "Vec",
];

/// A place in a body: names and indexes.
type Place = Vec<String>;

struct Trial<'a> {
    stage: &'a Stage,
    document: &'a Document,
    route: String,
    variant: Variant,
    base: Base,
    /// What was found to be untrue.
    found: Vec<String>,
    sent: usize,
}

impl Trial<'_> {
    async fn object(&mut self, schema: &Value, place: &Place) {
        let required: BTreeSet<&str> = self.document.required(schema).into_iter().collect();
        let (only, top) = (self.variant.only, place.is_empty());
        for (name, property) in self.document.properties(schema) {
            if top && !only.is_empty() && !only.contains(&name) {
                continue;
            }
            let mut inner = place.clone();
            inner.push(name.to_owned());
            if required.contains(name) {
                self.missing(&inner).await;
            }
            self.value(property, &inner).await;
        }
        let mut unknown = place.clone();
        unknown.push("noSuchField".to_owned());
        self.send(&unknown, &json!(1), false).await;
    }

    async fn value(&mut self, schema: &Value, place: &Place) {
        let given = lookup(&self.base.body, place).cloned().unwrap_or_default();
        for value in self.document.candidates(schema, &given) {
            let allowed = self.document.allows(schema, &value);
            self.send(place, &value, allowed).await;
        }
        let mut first = place.clone();
        first.push("0".to_owned());
        if given.is_object() {
            Box::pin(self.object(schema, place)).await;
        } else if let Some(item) = self.document.items(schema)
            && given[0] != Value::Null
        {
            if given[0].is_object() {
                Box::pin(self.object(item, &first)).await;
            } else {
                Box::pin(self.value(item, &first)).await;
            }
        }
    }

    async fn missing(&mut self, place: &Place) {
        let mut body = self.base.body.clone();
        let (name, outer) = place.split_last().unwrap();
        let object = lookup_mut(&mut body, outer).as_object_mut().unwrap();
        object.remove(name);
        let reply = self.reply(&body).await;
        self.judge(place, "nothing", false, &reply).await;
    }

    async fn send(&mut self, place: &Place, value: &Value, allowed: bool) {
        let mut body = self.base.body.clone();
        let (name, outer) = place.split_last().unwrap();
        match lookup_mut(&mut body, outer) {
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            object => object[name] = value.clone(),
        }
        let reply = self.reply(&body).await;
        let shown: String = value.to_string().chars().take(60).collect();
        self.judge(place, &shown, allowed, &reply).await;
    }

    async fn reply(&mut self, body: &Value) -> Reply {
        let method = self.route.split_once(' ').unwrap().0;
        let call = self.base.call(method, body);
        self.sent += 1;
        self.stage.world.server.send(&call, &self.base.token).await
    }

    async fn judge(&mut self, place: &Place, value: &str, allowed: bool, reply: &Reply) {
        let pointer = pointer(place);
        let names = names(reply, &pointer);
        let refused = matches!(reply.status, 400 | 422);
        let meant = self.variant.meaningful;
        let meaningful = meant.iter().any(|field| match field.strip_suffix("=null") {
            Some(field) => pointer == field && value == "null",
            None => {
                let part = |mark| pointer.starts_with(&format!("{field}{mark}"));
                pointer == *field || part("[") || part(".")
            }
        });
        let untrue = if !(allowed || refused && names) {
            Some("is excluded by the description and not refused by name")
        } else if allowed && refused && names && !meaningful {
            Some("is allowed by the description and refused")
        } else if reply.status >= 500 {
            Some("breaks the server")
        } else {
            None
        };
        if let Some(untrue) = untrue {
            let told: String = reply.text.chars().take(200).collect();
            let what = format!(
                "{} {}: {pointer} = {value} {untrue}: {} {told}",
                self.route, self.variant.name, reply.status
            );
            self.found.push(what);
        }
        self.found
            .extend(insides(reply).map(|what| format!("{} {pointer} = {value}: {what}", self.route)));
        if reply.status < 300 {
            self.base = self.stage.base(&self.route, self.variant.name).await;
        }
    }
}

/// Whether the field, a part of it or what it is a part of is to blame.
fn names(reply: &Reply, pointer: &str) -> bool {
    let part = |outer: &str, inner: &str| {
        inner == outer || inner.starts_with(&format!("{outer}.")) || inner.starts_with(&format!("{outer}["))
    };
    reply.json["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|error| {
            let named = error["pointer"].as_str().unwrap_or_default();
            !named.is_empty() && (part(named, pointer) || part(pointer, named))
        })
}

/// What a refusal shows of the code.
fn insides(reply: &Reply) -> impl Iterator<Item = String> {
    let mut texts = vec![reply.json["detail"].as_str().unwrap_or_default().to_owned()];
    for error in reply.json["errors"].as_array().into_iter().flatten() {
        texts.push(error["detail"].as_str().unwrap_or_default().to_owned());
    }
    if !(400..500).contains(&reply.status) {
        texts.clear();
    }
    let shown = |text: &String| {
        let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == ':' || c == '_'));
        words.any(|word| INSIDES.contains(&word)) || text.contains("expected")
    };
    texts
        .into_iter()
        .filter(shown)
        .map(|text| format!("shows the code's own words: {text}"))
}

fn pointer(place: &Place) -> String {
    let mut pointer = String::new();
    for part in place {
        match part.parse::<usize>() {
            Ok(index) => pointer.push_str(&format!("[{index}]")),
            Err(_) if pointer.is_empty() => pointer.push_str(part),
            Err(_) => {
                pointer.push('.');
                pointer.push_str(part);
            }
        }
    }
    pointer
}

fn lookup<'a>(body: &'a Value, place: &[String]) -> Option<&'a Value> {
    let path: String = place.iter().map(|part| format!("/{part}")).collect();
    body.pointer(&path)
}

fn lookup_mut<'a>(body: &'a mut Value, place: &[String]) -> &'a mut Value {
    let path: String = place.iter().map(|part| format!("/{part}")).collect();
    body.pointer_mut(&path).unwrap()
}

/// The operations of the document.
fn routes(document: &Document) -> Vec<(String, String, Value)> {
    let mut routes = Vec::new();
    for (path, item) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routes.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    routes
}

#[tokio::test]
async fn what_the_description_says_of_each_field_is_what_the_server_takes() {
    let stage = Stage::new().await;
    let document = Document(stage.world.server.get("", "/openapi.json").await.expect(200));
    let (mut found, mut sent, mut operations) = (Vec::new(), 0, 0);
    for (method, path, operation) in routes(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        operations += 1;
        assert!(
            !document.properties(schema).is_empty(),
            "{method} {path}: {schema} has no fields"
        );
        let route = format!("{method} {path}");
        for variant in variants(&route) {
            let base = stage.base(&route, variant.name).await;
            let mut trial = Trial {
                stage: &stage,
                document: &document,
                route: route.clone(),
                variant,
                base,
                found: Vec::new(),
                sent: 0,
            };
            trial.object(schema, &Vec::new()).await;
            println!("{route} {}: {} requests", variant.name, trial.sent);
            sent += trial.sent;
            found.extend(trial.found);
        }
        // A body may be left out exactly where the description says so.
        let base = stage.base(&route, variants(&route)[0].name).await;
        let optional = operation["requestBody"]["required"] != json!(true);
        let mut empty = base.call(&method, &json!({}));
        empty.body = Some(Vec::new());
        let reply = stage.world.server.send(&empty, &base.token).await;
        if optional == (reply.code() == "body-empty") {
            found.push(format!("{route}: without a body {}", reply.text));
        }
        for body in [json!(null), json!([]), json!([1, 2]), json!("x")] {
            let reply = stage
                .world
                .server
                .send(&base.call(&method, &body), &base.token)
                .await;
            if (reply.status == 422) == document.allows(schema, &body) {
                found.push(format!("{route}: {body} as body is answered with {}", reply.text));
            }
            found.extend(insides(&reply).map(|what| format!("{route} {body}: {what}")));
        }
    }
    assert!(
        operations > 30 && sent > 1_000,
        "{operations} operations, {sent} requests"
    );
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
    stage.world.stop().await;
}

#[tokio::test]
async fn what_the_description_says_of_each_parameter_is_what_the_server_takes() {
    let stage = Stage::new().await;
    let document = Document(stage.world.server.get("", "/openapi.json").await.expect(200));
    let (mut found, mut sent) = (Vec::new(), 0);
    let patient = stage.lab.patient(&stage.world.server).await;
    let file = "barcode,code,value\nB,K,1\n";
    let import = Call::new("POST", "/api/v1/imports").body("text/csv", file);
    let import = stage
        .world
        .server
        .send(&import, &stage.lab.technician)
        .await
        .expect(202);
    for (method, path, operation) in routes(&document) {
        // They run operations, and have no bounds.
        if method != "GET" {
            continue;
        }
        let token = match operation["tags"][0].as_str() {
            Some("operators") => stage.world.operator.clone(),
            _ if path.ends_with("/worklist") || path.contains("/imports/") => stage.lab.technician.clone(),
            _ => stage.lab.supervisor.clone(),
        };
        let token = if path.ends_with("/audit") || path.ends_with("/staff") {
            stage.lab.admin.clone()
        } else {
            token
        };
        let id = match path.split('/').nth(3) {
            Some("patients") => patient["id"].as_str().unwrap(),
            Some("imports") => import["id"].as_str().unwrap(),
            _ => &stage.lab.id,
        };
        let address = path.replace("{id}", id).replace("{code}", "K");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] != "query" {
                continue;
            }
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let of_number = schema["type"] == "integer";
            let of_flag = schema["type"] == "boolean";
            for value in document.candidates(schema, &Value::Null) {
                let text = match &value {
                    Value::String(text) => text.clone(),
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    _ => continue,
                };
                // A query has no other values than texts.
                let read = match (of_number, of_flag) {
                    (true, _) => text.parse::<i64>().map_or(json!(text), |number| json!(number)),
                    (_, true) => text.parse::<bool>().map_or(json!(text), |flag| json!(flag)),
                    _ => json!(text),
                };
                let allowed = document.allows(schema, &read);
                let url = reqwest::Url::parse_with_params("http://x/", [(name, &text)]).unwrap();
                let call = Call::new("GET", format!("{address}?{}", url.query().unwrap()));
                let reply = stage.world.server.send(&call, &token).await;
                sent += 1;
                let refused = matches!(reply.status, 400 | 422) && names(&reply, name);
                let shown: String = text.chars().take(60).collect();
                let what = format!(
                    "GET {path}?{name}={shown:?}: {} {}",
                    reply.status,
                    reply.text.chars().take(200).collect::<String>()
                );
                // A cursor is what the page before gave; days of before 1900 and of tomorrow are no birth
                // dates.
                let meaningful = ["after", "birthDate", "orderedOn"].contains(&name);
                if !allowed && !refused || allowed && refused && !meaningful || reply.status >= 500 {
                    found.push(what.clone());
                }
                found.extend(insides(&reply).map(|inside| format!("{what}: {inside}")));
            }
        }
    }
    assert!(sent > 300, "{sent} requests");
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
    stage.world.stop().await;
}

#[tokio::test]
async fn what_the_description_says_of_a_row_of_an_import_is_what_the_server_takes() {
    let stage = Stage::new().await;
    let (d, lab) = (&stage.world.server, &stage.lab);
    let document = Document(d.get("", "/openapi.json").await.expect(200));
    let schema = json!({ "$ref": "#/components/schemas/ImportRow" });
    let (_, order) = lab.received_order(d, &["K"]).await;
    let base =
        json!({ "barcode": order["specimens"][0]["barcode"], "code": "K", "value": "4.1", "unit": "mmol/L" });
    let mut found = Vec::new();
    for (name, property) in document.properties(&schema) {
        let rows = document.candidates(property, &Value::Null);
        let mut file = String::new();
        for value in &rows {
            let mut row = base.clone();
            row[name] = value.clone();
            file.push_str(&format!("{row}\n"));
        }
        let call = Call::new("POST", "/api/v1/imports?dryRun=true").body("application/x-ndjson", file);
        let batch = d.send(&call, &lab.technician).await.expect(202);
        let path = format!(
            "/api/v1/imports/{}/errors?limit=200",
            batch["id"].as_str().unwrap()
        );
        let errors = d.get(&lab.technician, &path).await.expect(200);
        for (at, value) in rows.iter().enumerate() {
            let error = errors["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|error| error["line"] == json!(at + 1));
            let reason = error.map_or("", |error| error["reason"].as_str().unwrap());
            // What comes after it compares the row with the laboratory's data.
            let of_form = error
                .is_some_and(|error| ["bad_row", "bad_value"].contains(&error["code"].as_str().unwrap()));
            let allowed = document.allows(property, value);
            // White space alone is nothing, as in CSV. What fits a test is for `value` to mean; without
            // `code` there must be `loinc`.
            let blank = value.as_str().is_some_and(|text| text.trim().is_empty());
            let named = of_form && reason.contains(name);
            let shown: String = value.to_string().chars().take(60).collect();
            if allowed && named && !["value", "code"].contains(&name) || !allowed && !blank && !named {
                found.push(format!("{name} = {shown}: {reason}"));
            }
            if INSIDES
                .iter()
                .any(|inside| reason.split(' ').any(|word| word == *inside))
            {
                found.push(format!("{name} = {shown} shows the code's own words: {reason}"));
            }
        }
    }
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
    stage.world.stop().await;
}
