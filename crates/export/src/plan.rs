//! What goes into an export and what does not.

use std::collections::BTreeSet;

use model::quote_ident;
use serde::Serialize;
use tokio_postgres::Transaction;

use crate::{
    ExportError,
    source::settle,
    tables::{Column, Reference, Table, tables},
    values::{Encoding, survey},
};

/// Words in a column's name that say that it holds a secret: such a column is left out of any table, also of
/// one that was made after this was written.
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
    /// What an absent value is written as. An empty field is an empty text.
    pub(crate) absent: String,
}

/// One column as one field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) column: Column,
    pub(crate) encoding: Encoding,
}

impl Resource {
    /// Looks at the values, and settles how they are written: before [`Self::copy`], in the same snapshot.
    ///
    /// # Errors
    /// [`ExportError::Db`]; [`ExportError::NoMarker`].
    pub(crate) async fn settle_encodings(&mut self, txn: &Transaction<'_>) -> Result<(), ExportError> {
        let encodings: Vec<&Encoding> = self.fields.iter().map(|field| &field.encoding).collect();
        let survey = survey(txn, &self.title, &self.quoted_table(), &encodings).await?;
        for (field, fits) in self.fields.iter_mut().zip(survey.fits) {
            if !fits {
                field.encoding = Encoding::postgresql(&field.column);
            }
        }
        self.absent = survey.absent;
        Ok(())
    }

    fn quoted_table(&self) -> String {
        format!(
            "{}.{}",
            quote_ident(&self.table.schema),
            quote_ident(&self.table.name)
        )
    }

    /// The statement that writes its rows, in the order of their key.
    pub(crate) fn copy(&self) -> String {
        let values: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("{} AS {}", field.encoding.sql, quote_ident(&field.column.name)))
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
        // An empty text alone in its line would be an empty line, which readers skip.
        let quoted = if self.fields.len() == 1 {
            ", FORCE_QUOTE *"
        } else {
            ""
        };
        format!(
            "COPY (SELECT {} FROM ONLY {} AS t{order}) TO STDOUT
             (FORMAT csv, HEADER true, NULL '{}', ENCODING 'UTF8'{quoted})",
            values.join(", "),
            self.quoted_table(),
            self.absent
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

/// Looks at the database and decides what to export. `left_out` names what the caller knows to be no data of
/// the owner's, or secret.
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
                fields.push(Field {
                    encoding: Encoding::preferred(&column),
                    column,
                });
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
            absent: String::new(),
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
