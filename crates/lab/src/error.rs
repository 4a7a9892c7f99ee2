use std::fmt;

use crate::{Guard, ResultId};

/// One field of a request that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldProblem {
    /// Where: the field's name as in the request, such as `birthDate` or `tests[2]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// One item of an all-or-nothing list that stops the whole list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemProblem {
    /// Where the item stands in the request, from 0.
    pub index: usize,
    /// The result.
    pub id: ResultId,
    /// A stable word for programs: `version`, `state`, `self_verification`, `critical_notice`,
    /// `critical_lifted` or `contradicted`.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Why the laboratory's work could not be done. Beside each variant stands the HTTP status it was made for.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// 404: no such row in this laboratory.
    #[error("there is no {what} {id} in this laboratory")]
    NotFound {
        /// Kind of row.
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// 409: the state of things does not allow it.
    #[error("{message}")]
    Conflict {
        /// A stable word for programs, such as `duplicate` or `order_closed`.
        code: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// As `source`, because of what one field of the request names.
    #[error("{source}")]
    At {
        /// The field's name as in the request, such as `patientId` or `items[3].id`.
        field: String,
        /// What is wrong with it.
        source: Box<LabError>,
    },
    /// 409: items of an all-or-nothing list; nothing of the list was done.
    #[error("{} of the items cannot be done; none was", .0.len())]
    Items(Vec<ItemProblem>),
    /// 409: a rule inside the database refused. The code above it should have said so first, and more kindly.
    #[error("the laboratory's rules refuse this: {message}")]
    Refused {
        /// Which rule.
        guard: Guard,
        /// The database's sentence.
        message: String,
    },
    /// 412: the row has changed since it was read.
    #[error(
        "{what} is at version {have} now, not {given}; read it again and repeat the change if it still fits"
    )]
    Version {
        /// Kind of row.
        what: &'static str,
        /// The version it has.
        have: i32,
        /// The version the caller named.
        given: i32,
    },
    /// 422: the request itself is wrong.
    #[error("{}", Problems(.0))]
    Invalid(Vec<FieldProblem>),
    /// 422: the idempotency key was used before for another body.
    #[error("this Idempotency-Key was used before with another body; take a new key for a new request")]
    KeyReused,
    /// 409: the first request with this idempotency key has not ended yet.
    #[error("the first request with this Idempotency-Key is still being worked on; repeat it in a moment")]
    KeyInFlight,
    /// 500: a row holds what no code of ours writes.
    #[error("table {table}, row {id}: column {column} cannot be read")]
    CorruptRow {
        /// The table or query.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key, or as much of it as could be read.
        id: String,
    },
    /// 503 or 500: the database failed; `pg::is_unavailable` tells which.
    #[error("the laboratory's database failed")]
    Db(#[source] tokio_postgres::Error),
}

struct Problems<'a>(&'a [FieldProblem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", problem.field, problem.message)?;
        }
        Ok(())
    }
}

impl LabError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldProblem {
            field: field.into(),
            message: message.into(),
        }])
    }

    /// The same, with the field of the request that is to blame.
    pub(crate) fn at(self, field: impl Into<String>) -> Self {
        Self::At {
            field: field.into(),
            source: Box::new(self),
        }
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn not_found(what: &'static str, id: impl fmt::Display) -> Self {
        Self::NotFound {
            what,
            id: id.to_string().chars().take(64).collect(),
        }
    }

    /// Whether the same transaction, run again from its beginning, may succeed: a deadlock or a serialization
    /// failure.
    #[must_use]
    pub fn may_pass_on_retry(&self) -> bool {
        matches!(self, Self::Db(error) if error.code().is_some_and(|code| matches!(code.code(), "40P01" | "40001")))
    }
}

/// The guards' codes become [`LabError::Refused`]; everything else stays the database's own failure.
impl From<tokio_postgres::Error> for LabError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&tokio_postgres::error::SqlState::CHARACTER_NOT_IN_REPERTOIRE) {
            // Every stored text is checked before; this is a search or a key from an address.
            return Self::invalid(
                "text",
                "it holds a NUL character, which PostgreSQL cannot hold; take it out",
            );
        }
        let refused = error
            .as_db_error()
            .and_then(|db| Guard::of(db.code().code()).map(|guard| (guard, db.message().to_owned())));
        match refused {
            Some((guard, message)) => Self::Refused { guard, message },
            None => Self::Db(error),
        }
    }
}

/// Turns the violation of one unique constraint into a conflict that says what is there already.
pub(crate) fn duplicate(constraint: &str, message: &str) -> impl FnOnce(tokio_postgres::Error) -> LabError {
    move |error| {
        let hit = error
            .as_db_error()
            .is_some_and(|db| db.constraint() == Some(constraint));
        if hit {
            LabError::conflict("duplicate", message)
        } else {
            error.into()
        }
    }
}

/// 412 unless the caller has seen the row as it is.
pub(crate) fn same_version(what: &'static str, have: i32, given: i32) -> Result<(), LabError> {
    if have == given {
        Ok(())
    } else {
        Err(LabError::Version { what, have, given })
    }
}
