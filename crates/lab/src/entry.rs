//! The way of a value into a result, one or thousands at once: read, compared with the previous one, written.
//! The database evaluates it ([`crate::evaluation`]).
//!
//! The screen and the importer both go through here, so that a value means the same however it came in.

use std::collections::HashMap;

use jiff::Timestamp;
use model::text::{identifier, line};
use tokio_postgres::Row;

use crate::{
    Actor, Comparator, ImportId, LabError, Number, ResultId, ResultStatus, SpecimenStatus, Txn, ValueType,
    audit,
    catalogue::{self, Test},
    delta::{self, Compared, Measured},
    limits::TEXT_VALUE_MAX,
    locks,
    rows::Reader,
    text, units,
};

/// A value that fits its test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(Number, Option<Comparator>),
    Text(String),
}

/// Which part of a value is wrong, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BadValue {
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

/// Reads a value for a test: number, unit and comparator, or one of the allowed words, or text.
pub(crate) fn read(
    test: &Test,
    value: &str,
    comparator: Option<Comparator>,
    unit: Option<&str>,
) -> Result<Value, BadValue> {
    let bad = |field, message: String| Err(BadValue { field, message });
    let value = &*text::block(value);
    if test.value_type != ValueType::Quantity {
        if comparator.is_some() {
            return bad(
                "comparator",
                format!("test {} is not a quantity and takes none", test.code),
            );
        }
        if unit.is_some() {
            return bad(
                "unit",
                format!("test {} is not a quantity and has none", test.code),
            );
        }
    }
    match test.value_type {
        ValueType::Quantity => {
            let expected = test.unit.as_deref().unwrap_or_default();
            let given = unit.and_then(|unit| identifier(unit, units::UNIT_MAX).ok());
            if !given.as_deref().is_some_and(|given| units::same(given, expected)) {
                return bad("unit", wrong_unit(test, expected, unit));
            }
            match Number::parse(value) {
                Ok(number) => Ok(Value::Number(number, comparator)),
                Err(error) => bad("value", error.to_string()),
            }
        }
        ValueType::Coded => {
            let allowed = test.allowed_values.as_deref().unwrap_or_default();
            let form = line(value, TEXT_VALUE_MAX).ok();
            // A word is stored as the test has it: an earlier version may have kept it in another form.
            let word = allowed
                .iter()
                .find(|word| *word == value || form.is_some() && line(word, TEXT_VALUE_MAX).ok() == form);
            if let Some(word) = word {
                Ok(Value::Text(word.clone()))
            } else {
                bad(
                    "value",
                    format!("{:?} is none of: {}", shown(value), allowed.join(", ")),
                )
            }
        }
        ValueType::Text => {
            let length = value.chars().count();
            if value.is_empty() || length > TEXT_VALUE_MAX || value.contains('\0') {
                bad(
                    "value",
                    format!("it must hold 1 to {TEXT_VALUE_MAX} characters and no NUL"),
                )
            } else {
                Ok(Value::Text(value.to_owned()))
            }
        }
        ValueType::Panel => bad(
            "value",
            format!("{} is a panel; its members have values", test.code),
        ),
    }
}

fn wrong_unit(test: &Test, expected: &str, unit: Option<&str>) -> String {
    let Some(unit) = unit else {
        return format!("test {} is in {expected:?}, given was none", test.code);
    };
    let given = shown(unit);
    let why = identifier(unit, units::UNIT_MAX)
        .map_err(|error| format!("it {error}"))
        .and_then(|unit| units::check(&unit));
    match why {
        Ok(()) => format!("test {} is in {expected:?}, given was {given:?}", test.code),
        Err(why) => format!(
            "test {} is in {expected:?}, given was {given:?}: {why}",
            test.code
        ),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What is on the bench: a result that is about to get a value.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) id: ResultId,
    pub(crate) version: i32,
    pub(crate) status: ResultStatus,
    pub(crate) test_code: String,
    pub(crate) specimen_status: SpecimenStatus,
    /// The value that it has.
    pub(crate) value: Option<Value>,
}

/// Locks results (their patients and specimens first, against a rejection or a correction at this moment) and
/// reads how far they are.
pub(crate) async fn bench(txn: &Txn<'_>, ids: &[ResultId]) -> Result<HashMap<ResultId, Bench>, LabError> {
    locks::share_people(txn, ids).await?;
    let statement = txn
        .prepare_cached(
            "SELECT s.id FROM specimen s WHERE s.id IN (SELECT r.specimen_id FROM result r WHERE r.id = ANY($1))
             ORDER BY s.id FOR SHARE",
        )
        .await?;
    txn.query(&statement, &[&ids]).await?;
    let statement = txn
        .prepare_cached("SELECT id FROM result WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .await?;
    txn.query(&statement, &[&ids]).await?;
    let statement = txn
        .prepare_cached(
            "SELECT r.id, r.version, r.status, r.test_code, s.status AS specimen_status, r.value_num, r.comparator, r.value_text
             FROM result r JOIN specimen s ON s.id = r.specimen_id WHERE r.id = ANY($1)",
        )
        .await?;
    let rows = txn.query(&statement, &[&ids]).await?;
    rows.iter()
        .map(|row| bench_row(row).map(|bench| (bench.id, bench)))
        .collect()
}

fn bench_row(row: &Row) -> Result<Bench, LabError> {
    let row = Reader::new("result", row);
    Ok(Bench {
        id: row.get("id")?,
        version: row.get("version")?,
        status: row.get("status")?,
        test_code: row.get("test_code")?,
        specimen_status: row.get("specimen_status")?,
        value: stored(&row)?,
    })
}

/// The value of a row of results or their revisions.
pub(crate) fn stored(row: &Reader<'_>) -> Result<Option<Value>, LabError> {
    Ok(match row.get::<Option<Number>>("value_num")? {
        Some(number) => Some(Value::Number(number, row.get("comparator")?)),
        None => row.get::<Option<String>>("value_text")?.map(Value::Text),
    })
}

/// A value to write.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) value: Value,
    pub(crate) comment: Option<&'a str>,
    pub(crate) instrument: Option<&'a str>,
    pub(crate) resulted_at: Option<Timestamp>,
    /// Why an earlier value is replaced.
    pub(crate) reason: Option<&'a str>,
}

/// Writes the values, with their audit events, in a fixed number of statements; the database evaluates them.
pub(crate) async fn write(
    txn: &Txn<'_>,
    actor: &Actor,
    import: Option<ImportId>,
    entries: &[Entry<'_>],
) -> Result<(), LabError> {
    let codes: Vec<String> = {
        let mut codes: Vec<String> = entries.iter().map(|e| e.bench.test_code.clone()).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    };
    let tests = catalogue::by_codes(txn, &codes).await?;
    let deltas = deltas(txn, &tests, entries).await?;
    let mut columns = Columns::default();
    for entry in entries {
        columns.push(entry, deltas.get(&entry.bench.id).copied());
    }
    columns.update(txn, actor, import, &tests).await?;
    let ids: Vec<String> = entries.iter().map(|e| e.bench.id.to_string()).collect();
    let detail = import.map(|import| serde_json::json!({ "import": import }));
    audit::write_each(txn, actor, "result.entered", "result", &ids, detail.as_ref()).await
}

/// The deltas of those entries whose test has a delta check. A value with a comparator is no number to
/// compare.
async fn deltas(
    txn: &Txn<'_>,
    tests: &HashMap<String, Test>,
    entries: &[Entry<'_>],
) -> Result<HashMap<ResultId, Measured>, LabError> {
    let compared: Vec<Compared> = entries
        .iter()
        .filter_map(|entry| {
            let Value::Number(value, None) = entry.value else {
                return None;
            };
            let allowed_pct = tests.get(&entry.bench.test_code)?.delta_pct?;
            Some(Compared {
                result: entry.bench.id,
                value,
                allowed_pct,
            })
        })
        .collect();
    delta::measure(txn, &compared, &[]).await
}

/// The entries as columns, for one statement.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<ResultId>,
    codes: Vec<&'a str>,
    numbers: Vec<Option<Number>>,
    comparators: Vec<Option<Comparator>>,
    texts: Vec<Option<&'a str>>,
    comments: Vec<Option<&'a str>>,
    instruments: Vec<Option<&'a str>>,
    resulted: Vec<Option<Timestamp>>,
    delta_flags: Vec<bool>,
    delta_previous: Vec<Option<Number>>,
    reasons: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, entry: &'a Entry<'a>, delta: Option<Measured>) {
        let (number, comparator, text) = match &entry.value {
            Value::Number(number, comparator) => (Some(*number), *comparator, None),
            Value::Text(text) => (None, None, Some(text.as_str())),
        };
        self.ids.push(entry.bench.id);
        self.codes.push(&entry.bench.test_code);
        self.numbers.push(number);
        self.comparators.push(comparator);
        self.texts.push(text);
        self.comments.push(entry.comment);
        self.instruments.push(entry.instrument);
        self.resulted.push(entry.resulted_at);
        self.delta_flags.push(delta.is_some_and(|delta| delta.exceeded));
        self.delta_previous.push(delta.map(|delta| delta.previous));
        self.reasons.push(entry.reason);
    }

    async fn update(
        &self,
        txn: &Txn<'_>,
        actor: &Actor,
        import: Option<ImportId>,
        tests: &HashMap<String, Test>,
    ) -> Result<(), LabError> {
        let units: Vec<Option<&str>> = self
            .codes
            .iter()
            .map(|code| tests.get(*code).and_then(|test| test.unit.as_deref()))
            .collect();
        let statement = txn
            .prepare_cached(
                "UPDATE result r SET status = 'entered', value_num = u.value_num, comparator = u.comparator, value_text = u.value_text,
                   unit = u.unit, comment = u.comment, instrument = u.instrument, resulted_at = u.resulted_at, import_id = $1,
                   delta_flag = u.delta_flag, delta_previous = u.delta_previous,
                   change_reason = u.reason, entered_by = $2, changed_by = $2
                 FROM unnest($3::uuid[], $4::numeric[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
                   $11::bool[], $12::numeric[], $13::text[])
                   AS u (id, value_num, comparator, value_text, unit, comment, instrument, resulted_at, delta_flag, delta_previous, reason)
                 WHERE r.id = u.id",
            )
            .await?;
        txn.execute(
            &statement,
            &[
                &import,
                &actor.staff.as_uuid(),
                &self.ids,
                &self.numbers,
                &self.comparators,
                &self.texts,
                &units,
                &self.comments,
                &self.instruments,
                &self.resulted,
                &self.delta_flags,
                &self.delta_previous,
                &self.reasons,
            ],
        )
        .await?;
        Ok(())
    }
}
