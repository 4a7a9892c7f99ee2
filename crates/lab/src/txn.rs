//! The transaction that all work of the laboratory runs in.

/// An open transaction in the laboratory's database. The caller commits it.
pub type Txn<'a> = deadpool_postgres::Transaction<'a>;
