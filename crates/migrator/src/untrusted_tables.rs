//! Reading a table that somebody else owns and running nothing of theirs.
//!
//! A view is a query of its owner's. A SELECT of a table plans, and planning works out the expressions and
//! predicates of its indexes: functions of the owner's, with the rights of whoever asks. COPY of a table
//! plans nothing, and refuses a view, also one that took the table's place a moment ago. Values are written
//! by their types, and only a superuser makes such a function.

use std::pin::pin;

use futures_util::{StreamExt, TryFutureExt, future};
use tokio_postgres::{
    Client,
    binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream},
    error::SqlState,
    types::{Oid, Type},
};

/// How many rows a table may have that is read so: none of those that we look at comes near.
const ROWS_MAX: usize = 100_000;

/// Why a table was not read.
#[derive(Debug)]
pub enum UntrustedTableError {
    /// It is not what was looked for; this says why, after the table's name.
    Shape(String),
    /// A statement failed.
    Db(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for UntrustedTableError {
    fn from(error: tokio_postgres::Error) -> Self {
        let of_shape = [
            SqlState::UNDEFINED_COLUMN,
            // A view took its place.
            SqlState::WRONG_OBJECT_TYPE,
            // The column is generated.
            SqlState::INVALID_COLUMN_REFERENCE,
        ];
        match error.code() {
            Some(code) if of_shape.contains(code) => Self::Shape(pg::describe(&error)),
            _ => Self::Db(error),
        }
    }
}

/// The columns of a table in the schema `public`, in no order, and as the types that they have; nothing where
/// there is no such table.
///
/// # Errors
/// [`UntrustedTableError::Shape`] when it is no plain table, hides rows from us, lacks a column, has one
/// whose type is not the server's own, or has more rows than any of ours.
pub async fn untrusted_table_rows(
    client: &Client,
    table: &str,
    columns: &[&str],
) -> Result<Option<Vec<BinaryCopyOutRow>>, UntrustedTableError> {
    let name = format!("public.{}", model::quote_ident(table));
    let quoted: Vec<String> = columns.iter().map(|column| model::quote_ident(column)).collect();
    let copy = format!("COPY {name} ({}) TO STDOUT (FORMAT binary)", quoted.join(", "));
    // Preparing it looks at nothing yet.
    let (types, copy) = future::try_join(
        types(client, &name, columns),
        client.prepare(&copy).map_err(UntrustedTableError::from),
    )
    .await?;
    let Some(types) = types else { return Ok(None) };
    let mut stream = pin!(BinaryCopyOutStream::new(client.copy_out(&copy).await?, &types));
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await {
        if rows.len() == ROWS_MAX {
            return Err(UntrustedTableError::Shape(format!(
                "it has more than {ROWS_MAX} rows"
            )));
        }
        rows.push(row?);
    }
    Ok(Some(rows))
}

/// The types of the columns. Every operator is named with its schema: one of the owner's that fits better
/// would come first.
async fn types(
    client: &Client,
    name: &str,
    columns: &[&str],
) -> Result<Option<Vec<Type>>, UntrustedTableError> {
    let rows = client
        .query_typed(
            "SELECT c.relkind::pg_catalog.text, pg_catalog.row_security_active(c.oid), a.attname::pg_catalog.text, a.atttypid
               FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2)
                AND NOT a.attisdropped
              WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)",
            &[(&name, Type::TEXT), (&columns, Type::TEXT_ARRAY)],
        )
        .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    if first.get::<_, &str>(0) != "r" {
        return Err(UntrustedTableError::Shape("it is no table".to_owned()));
    }
    if first.get(1) {
        return Err(UntrustedTableError::Shape("a policy hides rows of it".to_owned()));
    }
    let of = |column: &&str| {
        let row = rows
            .iter()
            .find(|row| row.get::<_, Option<&str>>(2) == Some(*column));
        let Some(row) = row else {
            return Err(UntrustedTableError::Shape(format!("it has no column {column}")));
        };
        Type::from_oid(row.get::<_, Oid>(3)).ok_or_else(|| {
            UntrustedTableError::Shape(format!(
                "its column {column} has a type that is not the server's own"
            ))
        })
    };
    columns.iter().map(of).collect::<Result<_, _>>().map(Some)
}
