//! What goes into an export and what does not, and how each value is written.

use std::collections::BTreeSet;

use model::quote_ident;
use serde::Serialize;
use tokio_postgres::Transaction;

use crate::{
    ExportError,
    source::settle,
    tables::{Column, Reference, Table, tables},
};

/// Words in a column's name that say that it holds a secret: such a column is left out of any table, also of one that was
/// made after this was written.
const SECRET: [&str; 7] = [
    "password",
    "passwd",
    "secret",
    "token",
    "private_key",
    "api_key",
    "credential",
];

/// A table or column that is not exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The table, with its schema unless that is `public`.
    pub table: String,
    /// The column; the whole table when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Why.
    pub why: String,
}

/// What will be written.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) resources: Vec<Resource>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) server_version: String,
}

impl Plan {
    /// The files of data, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(|resource| resource.path.as_str())
    }

    /// What is not exported, and why.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

/// One table as one file.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Unique among the resources; of lower-case letters, digits, `.`, `_` and `-`, as the standard wants it.
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) title: String,
    pub(crate) table: Table,
    pub(crate) fields: Vec<Field>,
}

/// One column as one field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) column: Column,
    pub(crate) kind: &'static str,
    pub(crate) format: Option<&'static str>,
    /// The value as SQL text, of the row `t`.
    value: String,
}

impl Field {
    fn of(column: Column) -> Self {
        let name = format!("t.{}", quote_ident(&column.name));
        let (kind, format, value) = match column.base.as_str() {
            _ if column.category == "A" => ("array", None, format!("array_to_json({name})")),
            "int2" | "int4" | "int8" => ("integer", None, name),
            "numeric" | "float4" | "float8" => ("number", None, name),
            "bool" => (
                "boolean",
                None,
                format!("CASE {name} WHEN true THEN 'true' WHEN false THEN 'false' END"),
            ),
            "date" => ("date", None, name),
            // RFC 3339, as the standard's date-times are; an infinite one has no such form.
            "timestamptz" => ("datetime", None, moment(&name, " AT TIME ZONE 'UTC'", "\"Z\"")),
            "timestamp" => ("datetime", None, moment(&name, "", "")),
            "time" => ("time", None, name),
            "interval" => ("duration", None, name),
            "uuid" => ("string", Some("uuid"), name),
            "json" | "jsonb" => ("any", None, name),
            "bytea" => (
                "string",
                Some("binary"),
                format!("translate(encode({name}, 'base64'), E'\\n', '')"),
            ),
            // As the type itself writes its values, which a cast to text does not always do.
            _ => ("string", None, name),
        };
        Self {
            column,
            kind,
            format,
            value,
        }
    }
}

fn moment(name: &str, zone: &str, suffix: &str) -> String {
    format!(
        "CASE WHEN isfinite({name}) THEN to_char({name}{zone}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US{suffix}') ELSE {name}::text END"
    )
}

impl Resource {
    /// The statement that writes its rows, in the order of their key. An absent value is `\N`: an empty field is an empty text.
    pub(crate) fn copy(&self) -> String {
        let values: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("{} AS {}", field.value, quote_ident(&field.column.name)))
            .collect();
        let key: Vec<String> = self
            .table
            .key
            .iter()
            .map(|column| format!("t.{}", quote_ident(column)))
            .collect();
        let readable = |name: &String| self.fields.iter().any(|field| field.column.name == *name);
        let order = if key.is_empty() || !self.table.key.iter().all(readable) {
            String::new()
        } else {
            format!(" ORDER BY {}", key.join(", "))
        };
        format!(
            "COPY (SELECT {} FROM ONLY {}.{} AS t{order}) TO STDOUT (FORMAT csv, HEADER true, NULL '\\N', ENCODING 'UTF8')",
            values.join(", "),
            quote_ident(&self.table.schema),
            quote_ident(&self.table.name)
        )
    }

    /// Its references whose both ends are exported.
    pub(crate) fn references<'a>(
        &'a self,
        all: &'a [Resource],
    ) -> impl Iterator<Item = (&'a Reference, &'a Resource)> {
        let has = |resource: &Resource, columns: &[String]| {
            columns
                .iter()
                .all(|column| resource.fields.iter().any(|field| field.column.name == *column))
        };
        self.table.references.iter().filter_map(move |reference| {
            let theirs = all
                .iter()
                .find(|r| r.table.schema == reference.schema && r.table.name == reference.table)?;
            let both = has(self, &reference.columns) && has(theirs, &reference.their_columns);
            both.then_some((reference, theirs))
        })
    }
}

/// Looks at the database and decides what to export. `left_out` names what the caller knows to be no data of the owner's, or
/// secret.
///
/// # Errors
/// [`ExportError::Db`].
pub async fn plan(txn: &Transaction<'_>, left_out: &[LeftOut]) -> Result<Plan, ExportError> {
    settle(txn).await?;
    let row = txn
        .query_one("SELECT current_setting('server_version')", &[])
        .await
        .map_err(ExportError::db("asking for the server's version"))?;
    let mut plan = Plan {
        resources: Vec::new(),
        left_out: Vec::new(),
        server_version: row.get(0),
    };
    let mut names = BTreeSet::new();
    for table in tables(txn).await? {
        plan.add(table, left_out, &mut names);
    }
    Ok(plan)
}

impl Plan {
    fn add(&mut self, mut table: Table, rules: &[LeftOut], names: &mut BTreeSet<String>) {
        let title = title(&table.schema, &table.name);
        let rule = |column: Option<&str>| {
            let rule = rules
                .iter()
                .find(|rule| rule.table == title && rule.column.as_deref() == column);
            rule.map(|rule| rule.why.clone())
        };
        let mut leave = |column: Option<&Column>, why: String| {
            self.left_out.push(LeftOut {
                table: title.clone(),
                column: column.map(|column| column.name.clone()),
                why,
            });
        };
        if let Some(why) = rule(None) {
            leave(None, why);
            return;
        }
        let mut fields = Vec::new();
        for column in std::mem::take(&mut table.columns) {
            let lower = column.name.to_lowercase();
            if let Some(why) = rule(Some(&column.name)) {
                leave(Some(&column), why);
            } else if SECRET.iter().any(|word| lower.contains(word)) {
                leave(Some(&column), "its name says that it holds a secret".to_owned());
            } else if !column.readable {
                leave(Some(&column), "this role may not read it".to_owned());
            } else {
                fields.push(Field::of(column));
            }
        }
        if fields.is_empty() {
            return;
        }
        let name = resource_name(&title, names);
        self.resources.push(Resource {
            path: format!("data/{name}.csv"),
            name,
            title,
            table,
            fields,
        });
    }
}

fn title(schema: &str, table: &str) -> String {
    if schema == "public" {
        table.to_owned()
    } else {
        format!("{schema}.{table}")
    }
}

/// A name that is a file name everywhere, unlike any before.
fn resource_name(title: &str, names: &mut BTreeSet<String>) -> String {
    let plain: String = title
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') {
                c
            } else {
                '_'
            }
        })
        .collect();
    let plain = match plain.trim_start_matches('.') {
        "" => "table".to_owned(),
        plain => plain.to_owned(),
    };
    let mut name = plain.clone();
    let mut number = 1;
    while !names.insert(name.clone()) {
        number += 1;
        name = format!("{plain}-{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_names_that_every_file_system_takes_and_no_two_the_same() {
        let mut names = BTreeSet::new();
        let given = [
            "patient",
            "Patient",
            "../evil/x",
            "my table",
            "...",
            "other.patient",
        ];
        let made: Vec<String> = given
            .iter()
            .map(|title| resource_name(title, &mut names))
            .collect();
        assert_eq!(
            made,
            [
                "patient",
                "patient-2",
                "_evil_x",
                "my_table",
                "table",
                "other.patient"
            ]
        );
    }
}
