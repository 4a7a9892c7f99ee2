//! What the database says of its own tables.

use tokio_postgres::Transaction;

use crate::ExportError;

/// A table as the catalogue has it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) comment: Option<String>,
    /// On disk, in bytes.
    pub(crate) bytes: i64,
    pub(crate) columns: Vec<Column>,
    /// Names of the primary key's columns, in its order.
    pub(crate) key: Vec<String>,
    pub(crate) unique: Vec<Vec<String>>,
    pub(crate) references: Vec<Reference>,
    /// CHECK constraints as the server writes them, with the columns that they speak of.
    pub(crate) checks: Vec<(Vec<String>, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As the server writes it, such as `numeric(10,2)`.
    pub(crate) type_name: String,
    /// The name of the base type, such as `numeric`.
    pub(crate) base: String,
    /// Whether that is one of the server's own types.
    pub(crate) built_in: bool,
    /// What it is an array of, where it is one.
    pub(crate) element: Option<Element>,
    pub(crate) required: bool,
    pub(crate) comment: Option<String>,
    pub(crate) words: Vec<String>,
    /// Whether the role may read it.
    pub(crate) readable: bool,
}

/// The type of an array's elements.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) type_name: String,
    /// Whether it is one of the server's own types.
    pub(crate) built_in: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) columns: Vec<String>,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) their_columns: Vec<String>,
}

/// All tables with rows of their own, in the order of their names; those of extensions aside.
pub(crate) async fn tables(txn: &Transaction<'_>) -> Result<Vec<Table>, ExportError> {
    let rows = txn
        .query(
            "SELECT c.oid, n.nspname::text, c.relname::text, obj_description(c.oid, 'pg_class'), pg_table_size(c.oid)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
              ORDER BY n.nspname <> 'public', n.nspname, c.relname",
            &[],
        )
        .await
        .map_err(ExportError::db("listing the tables"))?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in &rows {
        let oid: u32 = row.get(0);
        let (key, unique, references, checks) = constraints(txn, oid).await?;
        tables.push(Table {
            schema: row.get(1),
            name: row.get(2),
            comment: row.get(3),
            bytes: row.get(4),
            columns: columns(txn, oid).await?,
            key,
            unique,
            references,
            checks,
        });
    }
    Ok(tables)
}

async fn columns(txn: &Transaction<'_>, table: u32) -> Result<Vec<Column>, ExportError> {
    let rows = txn
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), b.typname::text,
                    b.typnamespace = 'pg_catalog'::regnamespace, e.typname::text, e.typnamespace = 'pg_catalog'::regnamespace,
                    a.attnotnull,
                    col_description(a.attrelid, a.attnum),
                    ARRAY(SELECT n.enumlabel::text FROM pg_catalog.pg_enum n WHERE n.enumtypid = b.oid ORDER BY n.enumsortorder),
                    has_column_privilege(a.attrelid, a.attnum, 'SELECT')
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
               -- A true array: int2vector has elements, but is no array type of them.
               LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND e.typarray = b.oid
              WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[&table],
        )
        .await
        .map_err(ExportError::db("listing the columns"))?;
    let columns = rows.iter().map(|row| Column {
        name: row.get(0),
        type_name: row.get(1),
        base: row.get(2),
        built_in: row.get(3),
        element: row.get::<_, Option<String>>(4).map(|type_name| Element {
            type_name,
            built_in: row.get(5),
        }),
        required: row.get(6),
        comment: row.get(7),
        words: row.get(8),
        readable: row.get(9),
    });
    Ok(columns.collect())
}

type Constraints = (
    Vec<String>,
    Vec<Vec<String>>,
    Vec<Reference>,
    Vec<(Vec<String>, String)>,
);

async fn constraints(txn: &Transaction<'_>, table: u32) -> Result<Constraints, ExportError> {
    let rows = txn
        .query(
            "SELECT k.contype::text, pg_get_constraintdef(k.oid),
                    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
                    n.nspname::text, f.relname::text,
                    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place)
               FROM pg_catalog.pg_constraint k
               LEFT JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
               LEFT JOIN pg_catalog.pg_namespace n ON n.oid = f.relnamespace
              WHERE k.conrelid = $1 ORDER BY k.conname",
            &[&table],
        )
        .await
        .map_err(ExportError::db("listing the constraints"))?;
    let (mut key, mut unique, mut references, mut checks) = Constraints::default();
    for row in &rows {
        let columns: Vec<String> = row.get(2);
        match row.get::<_, &str>(0) {
            "p" => key = columns,
            "u" => unique.push(columns),
            "c" => checks.push((columns, row.get(1))),
            "f" => references.push(Reference {
                columns,
                schema: row.get(3),
                table: row.get(4),
                their_columns: row.get(5),
            }),
            _ => {}
        }
    }
    Ok((key, unique, references, checks))
}
