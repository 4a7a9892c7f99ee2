//! The documents beside the data: the description by the Data Package standard
//! (<https://datapackage.org/standard/>), the manifest, and a page for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::plan::{Field, LeftOut, Plan, Resource};

/// Whose data it is and when it was read, for the documents.
#[derive(Debug, Clone)]
pub struct About {
    /// The owner's id.
    pub id: String,
    /// The owner's short name: lower-case letters, digits and hyphens.
    pub slug: String,
    /// The owner's name.
    pub name: String,
    /// The version of the database's schema.
    pub schema_version: u32,
    /// When the export began.
    pub exported_at: Timestamp,
}

/// One file of the archive.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FileEntry {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    format: u32,
    laboratory: Value,
    exported_at: Timestamp,
    schema_version: u32,
    server_version: &'a str,
    rows: u64,
    files: &'a [FileEntry],
    left_out: &'a [LeftOut],
}

pub(crate) fn manifest(about: &About, plan: &Plan, files: &[FileEntry]) -> Vec<u8> {
    let manifest = Manifest {
        format: 1,
        laboratory: json!({ "id": about.id, "slug": about.slug, "name": about.name }),
        exported_at: about.exported_at,
        schema_version: about.schema_version,
        server_version: &plan.server_version,
        rows: files.iter().filter_map(|file| file.rows).sum(),
        files,
        left_out: &plan.left_out,
    };
    pretty(&manifest)
}

/// Ends with a line feed, as text files do.
fn pretty(document: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document).expect("a document with text keys has a JSON form");
    text.push(b'\n');
    text
}

pub(crate) fn data_package(about: &About, plan: &Plan) -> Vec<u8> {
    let resources = plan.resources.iter().map(|one| resource(one, &plan.resources));
    pretty(&json!({
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "name": about.slug,
        "id": about.id,
        "title": about.name,
        "created": about.exported_at,
        "resources": resources.collect::<Vec<_>>(),
    }))
}

fn resource(one: &Resource, all: &[Resource]) -> Value {
    let mut schema = json!({
        "fields": one.fields.iter().map(field).collect::<Vec<_>>(),
        "missingValues": [one.absent],
    });
    let exported = |columns: &[String]| {
        columns
            .iter()
            .all(|column| one.fields.iter().any(|field| field.column.name == *column))
    };
    if !one.table.key.is_empty() && exported(&one.table.key) {
        schema["primaryKey"] = json!(one.table.key);
    }
    let unique: Vec<_> = one
        .table
        .unique
        .iter()
        .filter(|columns| exported(columns))
        .collect();
    if !unique.is_empty() {
        schema["uniqueKeys"] = json!(unique);
    }
    let references: Vec<Value> = one
        .references(all)
        .map(|(reference, theirs)| {
            // The standard writes a reference to the same resource so.
            let resource = if theirs.name == one.name { "" } else { &theirs.name };
            json!({
                "fields": reference.columns,
                "reference": { "resource": resource, "fields": reference.their_columns },
            })
        })
        .collect();
    if !references.is_empty() {
        schema["foreignKeys"] = json!(references);
    }
    let mut described = json!({
        "name": one.name,
        "title": one.title,
        "path": one.path,
        "type": "table",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "dialect": { "delimiter": ",", "lineTerminator": "\r\n", "quoteChar": "\"", "doubleQuote": true, "header": true },
        "schema": schema,
    });
    if let Some(comment) = &one.table.comment {
        described["description"] = json!(comment);
    }
    // What is said of a column that is left out stays away with it.
    let checks = one.table.checks.iter().filter(|(columns, _)| exported(columns));
    let checks: Vec<&String> = checks.map(|(_, text)| text).collect();
    if !checks.is_empty() {
        described["postgresql:checks"] = json!(checks);
    }
    described
}

fn field(one: &Field) -> Value {
    let mut described = Map::new();
    described.insert("name".to_owned(), json!(one.column.name));
    described.insert("type".to_owned(), json!(one.encoding.kind));
    if let Some(format) = one.encoding.format {
        described.insert("format".to_owned(), json!(format));
    }
    if let Some(comment) = &one.column.comment {
        described.insert("description".to_owned(), json!(comment));
    }
    let mut constraints = Map::new();
    if one.column.required {
        constraints.insert("required".to_owned(), json!(true));
    }
    if !one.column.words.is_empty() {
        constraints.insert("enum".to_owned(), json!(one.column.words));
    }
    if !constraints.is_empty() {
        described.insert("constraints".to_owned(), Value::Object(constraints));
    }
    described.insert("postgresql:type".to_owned(), json!(one.column.type_name));
    if let Some(explanation) = one.encoding.explanation {
        described.insert("postgresql:values".to_owned(), json!(explanation));
    }
    Value::Object(described)
}

pub(crate) fn readme(about: &About, plan: &Plan) -> String {
    let mut text = format!(
        "The data of {name}\n\
         ===================\n\n\
         Exported at {at} (UTC) from a database of schema version {version}. Everything was read at one moment.\n\n\
         What is here\n\
         ------------\n\n\
         data/*.csv        one file for each table: CSV by RFC 4180, UTF-8, a header line, CRLF line ends\n\
         datapackage.json  what each table and column is: types, keys, references, in the Data Package standard\n\
         \x20                 (https://datapackage.org), which programs such as frictionless read by themselves\n\
         manifest.json     rows, size and SHA-256 of each file, and what was left out\n\n\
         How values are written\n\
         ----------------------\n\n\
         \\N                an absent value; an empty field is an empty text. Where a table holds the text \\N itself, \"missingValues\"\n\
         \x20                 in datapackage.json names what stands for an absent value in that table\n\
         true, false       yes and no\n\
         2031-05-06T07:08:09.000000Z\n\
         \x20                 a moment, in UTC; 2031-05-06 a day\n\
         INF, -INF, NaN    numbers that are not finite\n\
         [..], {{..}}        lists and structures are JSON\n\
         binary            Base64 (columns of the format \"binary\")\n\
         other             as PostgreSQL writes and reads it, where the field has \"postgresql:values\": types that the standard\n\
         \x20                 does not have, and each column with a value that the standard's type cannot say (infinity, a date BC)\n\n\
         Rows refer to each other by ids: \"foreignKeys\" in datapackage.json says which column names a row of which table.\n\n\
         Tables\n\
         ------\n\n",
        name = about.name,
        at = about.exported_at.strftime("%Y-%m-%d %H:%M:%S"),
        version = about.schema_version,
    );
    for resource in &plan.resources {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", resource.path);
    }
    if !plan.left_out.is_empty() {
        text.push_str("\nLeft out\n--------\n\n");
        for one in &plan.left_out {
            let column = one
                .column
                .as_ref()
                .map(|column| format!(".{column}"))
                .unwrap_or_default();
            let _ = writeln!(text, "{}{column}: {}", one.table, one.why);
        }
    }
    text
}
