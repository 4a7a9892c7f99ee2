//! An export as somebody else reads it, and the same rows as the database has them.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use export::{About, ExportError, LeftOut, Source, Summary};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use testkit::Space;
use tokio_postgres::Client;

pub(crate) const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) fn about() -> About {
    About {
        id: "0190a5b0-0000-7000-8000-000000000001".to_owned(),
        slug: "acme-lab".to_owned(),
        name: "Acme \"Laboratory\"".to_owned(),
        schema_version: 8,
        exported_at: "2031-05-06T07:08:09Z".parse::<Timestamp>().unwrap(),
    }
}

pub(crate) async fn client(space: &Space) -> Client {
    pg::connect(&space.registry, "export test", LIMIT).await.unwrap()
}

pub(crate) async fn source(space: &Space) -> Source {
    Source::connect(&space.registry, LIMIT).await.unwrap()
}

/// Exports everything but what the rules leave out, in pieces of bounded size.
pub(crate) async fn exported(space: &Space, rules: &[LeftOut]) -> Result<(Vec<u8>, Summary), ExportError> {
    let mut source = source(space).await;
    let txn = source.begin().await?;
    let plan = export::plan(&txn, rules).await?;
    let mut archive = Vec::new();
    let out = async |piece: bytes::Bytes| {
        assert!(piece.len() <= 256 * 1024, "a piece of {} bytes", piece.len());
        archive.extend_from_slice(&piece);
        Ok(())
    };
    let summary = export::write(&txn, &plan, &about(), out, |_, _| {}).await?;
    Ok((archive, summary))
}

/// The files of an archive, each checked against the manifest.
pub(crate) struct Opened {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: Value,
    pub(crate) package: Value,
}

impl Opened {
    pub(crate) fn of(archive: &[u8]) -> Self {
        let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
        let mut files = BTreeMap::new();
        for at in 0..zip.len() {
            let mut file = zip.by_index(at).unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            files.insert(file.name().unwrap().to_string(), content);
        }
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let opened = Self {
            manifest: json("manifest.json"),
            package: json("datapackage.json"),
            files,
        };
        let listed = opened.manifest["files"].as_array().unwrap();
        assert_eq!(
            listed.len() + 1,
            opened.files.len(),
            "the manifest lists every file but itself"
        );
        for one in listed {
            let content = &opened.files[one["path"].as_str().unwrap()];
            assert_eq!(one["bytes"], content.len(), "{one}");
            assert_eq!(one["sha256"], hex::encode(Sha256::digest(content)), "{one}");
        }
        opened
    }

    pub(crate) fn resource(&self, name: &str) -> &Value {
        let resources = self.package["resources"].as_array().unwrap();
        resources.iter().find(|one| one["name"] == name).unwrap()
    }

    pub(crate) fn tables(&self) -> Vec<&str> {
        let resources = self.package["resources"].as_array().unwrap();
        resources
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect()
    }

    /// A table's rows, read by nothing but its description.
    pub(crate) fn rows(&self, name: &str) -> Vec<Value> {
        let resource = self.resource(name);
        let path = resource["path"].as_str().unwrap();
        let fields = resource["schema"]["fields"].as_array().unwrap();
        let mut reader = csv::ReaderBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_reader(&self.files[path][..]);
        let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let named: Vec<&str> = fields
            .iter()
            .map(|field| field["name"].as_str().unwrap())
            .collect();
        assert_eq!(header, named);
        let rows = reader.records().map(|record| {
            let record = record.unwrap();
            let values = fields.iter().zip(record.iter());
            let values =
                values.map(|(field, text)| (field["name"].as_str().unwrap().to_owned(), value(field, text)));
            Value::Object(values.collect::<Map<_, _>>())
        });
        let rows: Vec<Value> = rows.collect();
        let listed = self.manifest["files"].as_array().unwrap();
        let listed = listed.iter().find(|one| one["path"] == path).unwrap();
        assert_eq!(listed["rows"], rows.len(), "{listed}");
        rows
    }
}

/// A field's text as the value that its type says, in a form in which both sides are compared.
fn value(field: &Value, text: &str) -> Value {
    if text == "\\N" {
        return Value::Null;
    }
    match (field["type"].as_str().unwrap(), field["format"].as_str()) {
        ("integer", _) => json!(text.parse::<i64>().unwrap()),
        ("boolean", _) => json!(text.parse::<bool>().unwrap()),
        ("array" | "any", _) => serde_json::from_str(text).unwrap(),
        ("datetime", _) => json!(moment(text)),
        ("string", Some("binary")) => json!(format!("\\x{}", hex::encode(STANDARD.decode(text).unwrap()))),
        // A number keeps its digits: 1.10 is not 1.1.
        _ => json!(text),
    }
}

/// One way to write a moment, where it is one.
fn moment(text: &str) -> String {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return moment.to_string();
    }
    let local = text.parse::<jiff::civil::DateTime>();
    local.map_or_else(|_| text.to_owned(), |local| local.to_string())
}

/// A table's rows as the database gives them, in the same form.
pub(crate) async fn rows_of(client: &Client, opened: &Opened, table: &str) -> Vec<Value> {
    let fields = opened.resource(table)["schema"]["fields"].as_array().unwrap();
    let key = opened.resource(table)["schema"]["primaryKey"].as_array();
    let order: Vec<&str> = key
        .into_iter()
        .flatten()
        .map(|column| column.as_str().unwrap())
        .collect();
    let order = if order.is_empty() {
        "1".to_owned()
    } else {
        order.join(", ")
    };
    // As text: JSON numbers lose digits, and a string is what the type itself writes.
    let as_text = |field: &&Value| ["number", "string"].contains(&field["type"].as_str().unwrap());
    let texts = fields
        .iter()
        .filter(as_text)
        .map(|field| field["name"].as_str().unwrap());
    let texts: Vec<String> = texts
        .map(|name| format!("'{name}', CASE WHEN \"{name}\" IS NOT NULL THEN format('%s', \"{name}\") END"))
        .collect();
    let sql = format!(
        "SELECT (to_jsonb(t) || jsonb_build_object({}))::text FROM \"{table}\" t ORDER BY {order}",
        texts.join(", ")
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    let rows = rows.iter().map(|row| {
        let all: Value = serde_json::from_str(row.get(0)).unwrap();
        let texts = fields.iter().map(|field| {
            let name = field["name"].as_str().unwrap();
            let given = &all[name];
            let value = match field["type"].as_str().unwrap() {
                "datetime" => given.as_str().map_or(Value::Null, |text| json!(moment(text))),
                _ => given.clone(),
            };
            (name.to_owned(), value)
        });
        Value::Object(texts.collect::<Map<_, _>>())
    });
    rows.collect()
}
